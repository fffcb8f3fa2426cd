import { expect, test } from 'vitest';
import { axisValue, type SweepLists, seriesOf, sweepPlan } from './sweepPlan.js';

const lists: SweepLists = { guider: 'cfg', guidance: '0,1,2', steps: '20' };
const keys = (all: SweepLists) => {
  const { points, axis } = sweepPlan(all);
  return points.map((point) => `${seriesOf(point, axis, all)}|${axisValue(point, axis)}|${point.guidance}`);
};

test('scales lie along the axis, rising, each once', () => {
  expect(sweepPlan({ ...lists, guidance: '2, 0,1,2' })).toMatchObject({
    axis: 'guidance',
    values: [0, 1, 2],
    series: [''],
  });
  expect(keys(lists)).toEqual(['|0|cfg=0', '|1|cfg=1', '|2|cfg=2']);
});

test('whatever else has several values makes series', () => {
  const all = { guider: 'cfg,cfg=3+pag', guidance: '1,2', sampler: 'ddim,euler', steps: '5,10' };
  const { points, series } = sweepPlan(all);
  expect(points).toHaveLength(16);
  expect(series).toHaveLength(8);
  expect(series[0]).toBe('cfg, ddim, 5 steps');
  expect(points[8]).toMatchObject({ guidance: 'cfg=3,pag=1', sampler: 'ddim', steps: 5 });
});

test('steps lie along the axis where there is one scale', () => {
  const all = { ...lists, guidance: '2', sampler: 'ddim,euler', steps: '20,5' };
  expect(keys(all)).toEqual(['ddim|5|cfg=2', 'ddim|20|cfg=2', 'euler|5|cfg=2', 'euler|20|cfg=2']);
});

test('what a guider is scaled by may stand anywhere', () => {
  const guidanceOf = (guider: string) => sweepPlan({ ...lists, guider, guidance: '2' }).points[0].guidance;
  expect(guidanceOf('pag+layers=4+5')).toBe('pag=2,layers=4+5');
  expect(guidanceOf('cfg=1.5+seg+sigma=3')).toBe('cfg=1.5,seg=2,sigma=3');
  expect(guidanceOf('fdg=s:1')).toBe('fdg=2:1');
  expect(guidanceOf('cfg+interval=0.1:0.8')).toBe('cfg=2,interval=0.1:0.8');
  expect(() => guidanceOf('hope')).toThrow('--guidance: expected');
  expect(() => guidanceOf('cfg=2')).toThrow("'cfg=2' has a value for everything");
});
