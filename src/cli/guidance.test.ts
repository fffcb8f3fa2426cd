import { expect, test } from 'vitest';
import { constant } from '../tensor/index.js';
import { guiders, guidersHelp, parseGuidance, withGuidanceFlags } from './guidance.js';

const step = (index: number, predictionType: 'epsilon' | 'flow' = 'epsilon') =>
  ({ index, total: 10, timestep: 0, predictionType }) as const;
const branches = (text: string, index = 0) =>
  parseGuidance(text)
    .branches(step(index))
    .map(({ name }) => name);

test('every guider by its name', () => {
  for (const name of Object.keys(guiders)) {
    if (name !== 'classifier') expect(branches(`${name}=3`).length, name).toBe(2);
    expect(guidersHelp).toContain(`  ${name} `);
  }
  expect(parseGuidance('fdg=6:3').inputs(step(0))).toEqual([1, 5, 2, 0]);
  expect(parseGuidance('apg-mix=3:8').inputs(step(9))[0]).toBe(7);
});

test('several guiders share interval and rescale', () => {
  const both = 'cfg=4,pag=2,interval=0.1:0.8,rescale=0.7,layers=4+mid_block+-1';
  expect(branches(both, 0)).toEqual(['positive']);
  expect(branches(both, 1)).toEqual([
    'positive',
    'negative',
    'identity attention in 4,mid_block,-1 attention (positive)',
  ]);
  expect(parseGuidance('cfg=4,pag=2').inputs(step(0))).toEqual([1, 0, 4, 0, 2, 1, 0]);
  expect(parseGuidance('pag=3,convention=standard').inputs(step(0))[0]).toBe(2);
});

test('a classifier guides the unconditional prediction when alone, else what the others say', () => {
  const classifier = { numClasses: 2, forward: () => constant(0) };
  const asks = (text: string, index = 0) =>
    parseGuidance(text, { classifier, unconditional: true })
      .branches(step(index))
      .map(({ name }) => name.replace(/\d+/, ''));
  expect(asks('classifier=2')).toEqual(['negative', 'classifier ']);
  expect(asks('classifier=2,interval=0.5:1')).toEqual(['negative']);
  expect(asks('cfg=3,classifier=2,form=mean')).toEqual(['positive', 'negative', 'classifier ']);
  expect(asks('classifier=2,rescale=0.5')).toEqual(['positive', 'negative', 'classifier ']);
  expect(() => parseGuidance('classifier=2')).toThrow('--guidance: classifier needs one: a run of train --model noisy');
  expect(() => parseGuidance('3', { classifier })).toThrow('--classifier: only the guider classifier asks one');
  expect(() => parseGuidance('cfg=2,form=mean')).toThrow('form is for classifier, not for cfg');
});

test('flags of their own', () => {
  expect(withGuidanceFlags('3', {})).toBe('3');
  expect(withGuidanceFlags('3', { interval: '0.1:0.8' })).toBe('cfg=3,interval=0.1:0.8');
  expect(withGuidanceFlags('cfg=3,pag=2', { layers: '4,5', rescale: '0.5' })).toBe(
    'cfg=3,pag=2,layers=4+5,rescale=0.5',
  );
  expect(() => withGuidanceFlags('none', { layers: '4' })).toThrow('--guidance-layers: there is no guidance');
});

test('says what does not fit', () => {
  expect(() => parseGuidance('cfg=3,layers=4')).toThrow('--guidance: layers is for pag, auto, slg, seg, not for cfg');
  for (const wrong of ['cfgs=3', 'cfg=3,cfg=4', 'pag=2:3', 'slg=2,skip=all', 'cfg=3,depth=2'])
    expect(() => parseGuidance(wrong), wrong).toThrow('--guidance: expected');
  expect(() => parseGuidance('slg=2,dropout=2')).toThrow('--guidance: dropout must lie in (0, 1), got 2');
});
