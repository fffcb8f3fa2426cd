import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import type { Denoiser } from '../models/index.js';
import { Module } from '../nn/index.js';
import { ddim } from '../samplers/index.js';
import type { Tensor } from '../tensor/index.js';
import { drawPairs, pairsAt, straightness } from './reflow.js';
import { evenEuler, pairSampler, pairSamplers } from './reflowTraining.js';

/** The flow of a standard normal to one of half its width: x_t keeps its sign and shrinks. */
class Shrinking extends Module implements Denoiser {
  readonly config = {};
  readonly inChannels = 1;
  readonly outChannels = 1;
  readonly sampleSize = 2;
  forward(x: Tensor, timestep: Tensor): Tensor {
    const sigma = timestep.div(1000).reshape([-1, 1, 1, 1]);
    const alpha = sigma.neg().add(1);
    const slope = sigma.sub(alpha.mul(0.25)).div(alpha.square().mul(0.25).add(sigma.square()));
    return x.mul(slope);
  }
}
const model = new Shrinking();

describe('drawPairs', () => {
  it.each(pairSamplers)('solves the ODE with %s', async (name) => {
    const { noise, samples } = await drawPairs({
      model,
      sampler: pairSampler(name),
      steps: 60,
      labels: [0, 0, 0],
      seed: 2,
    });
    for (const [i, x] of samples.data.entries()) expect(x / noise.data[i]).toBeCloseTo(0.5, 1);
  });

  it('refuses what is no flow', async () => {
    const pairs = drawPairs({ model, sampler: ddim(), steps: 2, labels: [0], seed: 0 });
    await expect(pairs).rejects.toThrow('DDIMScheduler predicts epsilon, expected flow');
  });
});

it('evenEuler takes even steps that end at sigma 0', () => {
  const { sigmas } = evenEuler().plan({ steps: 4 });
  for (const [i, sigma] of [1, 0.75, 0.5, 0.25, 0].entries()) expect(sigmas![i]).toBeCloseTo(sigma, 2);
});

it('pairsAt takes pairs in the order asked for', () => {
  const [noise, samples] = [ndarray([1, 2, 3, 4], [2, 2]), ndarray([5, 6, 7, 8], [2, 2])];
  expect(pairsAt({ noise, samples }, [1, 0, 1])).toEqual({
    noise: ndarray([3, 4, 1, 2, 3, 4], [3, 2]),
    samples: ndarray([7, 8, 5, 6, 7, 8], [3, 2]),
  });
});

describe('straightness', () => {
  const state = (...x: number[]): NdArray<'float32'> => ndarray(x, [1, x.length]);
  it('is 0 for straight lines at even speed', () => {
    expect(straightness([state(0, 4), state(1, 2), state(2, 0)])).toBe(0);
  });
  it('is the mean square of what the velocity departs from the chord', () => {
    expect(straightness([state(0), state(1), state(0)])).toBe(4); // v = 2, -2; chord 0
    expect(straightness([state(0), state(3), state(4)])).toBe(4); // v = 6, 2; chord 4
    expect(() => straightness([state(0)])).toThrow('1 states, expected at least 2');
  });
});
