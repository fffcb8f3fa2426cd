import { expect, it } from 'vitest';
import { constant, evaluate } from '../tensor/index.js';
import { emaDecay, emaUpdate } from './ema.js';

const decays = (count: number, options = {}) => Array.from({ length: count }, (_, i) => emaDecay(i + 1, options));

it('rises as diffusers does: 0, then 2/11, 3/12', () => {
  expect(decays(3)).toEqual([0, 2 / 11, 3 / 12]);
  expect(emaDecay(1e9)).toBe(0.9999);
});

it('waits, keeps a floor and warms up by a power', () => {
  expect(decays(7, { updateAfterStep: 5 })).toEqual([0, 0, 0, 0, 0, 0, 2 / 11]);
  expect(decays(2, { minDecay: 0.5 })).toEqual([0, 0.5]);
  expect(emaDecay(2, { useEmaWarmup: true })).toBeCloseTo(0.3700394750525634, 14);
  expect(emaDecay(9, { useEmaWarmup: true, invGamma: 2, power: 1 })).toBeCloseTo(0.8, 14);
});

it('moves the average by 1 - decay of the way', async () => {
  const next = await evaluate(emaUpdate(constant([1, -2]), constant([2, 2]), 0.25));
  expect([...(next.data as Float32Array)]).toEqual([1.25, -1]);
});
