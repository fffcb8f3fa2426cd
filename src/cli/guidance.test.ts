import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { writeNpz } from '../io/node/index.js';
import { constant } from '../tensor/index.js';
import { guiders, guidersHelp, parseGuidance, withGuidanceFlags } from './guidance.js';
import { runCli } from './program.js';

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

test('a run that never dropped classes has no unconditional prediction', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const call = async (...args: string[]) => {
    const err: string[] = [];
    const code = await runCli(args, { out: () => {}, err: (line) => err.push(line), interactive: false });
    return { code, err: err.join(' ') };
  };
  const data = join(folder, 'toy.npz');
  const [images, labels] = [ndarray(new Uint8Array(256), [4, 8, 8], 'uint8'), ndarray([0, 1, 0, 1], [4], 'uint8')];
  await writeNpz(data, { images, labels, images_test: images, labels_test: labels });
  const run = join(folder, 'run');
  const model = ['--model', 'dit', '--preset', 'tiny', '--model-config', '{"numLayers": 1, "attentionHeadDim": 8}'];
  const how = ['--data', data, '--batch', '4', '--steps', '1', '--condition-dropout', '0', '--out', run];
  expect((await call('train', ...model, ...how)).code).toBe(0);
  const out = ['--steps', '2', '--per-class', '1', '--out', join(folder, 'grid.png')];
  const refused = await call('sample', run, '--guidance', '3', ...out);
  expect(refused.code).toBe(1);
  expect(refused.err).toContain('was trained without dropping conditions');
  expect((await call('sample', run, '--guidance', 'pag=1', ...out)).code).toBe(0);
  await rm(folder, { recursive: true, force: true });
});
