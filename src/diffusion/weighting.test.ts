import { describe, expect, it } from 'vitest';
import { Generator } from '../random/index.js';
import { drawNoiseLevels, flowWeights, minSnrWeights, signalToNoise } from './weighting.js';

const rounded = (values: Float32Array): number[] => [...values].map((x) => Number(x.toPrecision(5)));

describe('min-SNR weights', () => {
  it('reads the ratio off the noise schedule', () => {
    expect(rounded(signalToNoise(Float32Array.of(0.9, 0.5, 0), [0, 1, 2]))).toEqual([9, 1, 0]);
    expect(() => signalToNoise(new Float32Array(3), [3])).toThrow('timestep 3 out of range 0..2');
  });

  it('is min(snr, gamma) for x0, divided by snr for epsilon and by snr + 1 for v', () => {
    const snr = Float32Array.of(0, 1, 5, 20);
    expect(rounded(minSnrWeights(snr, 5, 'x0'))).toEqual([0, 1, 5, 5]);
    expect(rounded(minSnrWeights(snr, 5, 'epsilon'))).toEqual([1, 1, 1, 0.25]);
    expect(rounded(minSnrWeights(snr, 5, 'v'))).toEqual([0, 0.5, 0.83333, 0.2381]);
    expect(() => minSnrWeights(snr, 5, 'flow')).toThrow("prediction 'flow'");
  });
});

describe("Stable Diffusion 3's training", () => {
  // diffusers' compute_density_for_timestep_sampling after torch.manual_seed(0), a batch of 10
  it('draws noise levels', () => {
    const draw = (density: Parameters<typeof drawNoiseLevels>[0]) =>
      rounded(drawNoiseLevels(density, 10, new Generator(0)).subarray(0, 3));
    expect(draw('uniform')).toEqual([0.49626, 0.76822, 0.088477]);
    expect(draw('logit_normal')).toEqual([0.82361, 0.42716, 0.10167]);
    expect(draw('mode')).toEqual([0.50099, 0.3672, 0.82214]);
  });

  it('draws both ends more often for straight flows', () => {
    const u = drawNoiseLevels('u_shaped', 4000, new Generator(0));
    const share = (from: number, to: number) => u.filter((x) => x >= from && x < to).length / u.length;
    const within = (from: number, to: number) => (Math.exp(4 * to) - Math.exp(4 * from)) / Math.expm1(4);
    for (const [from, to] of [
      [0, 0.1],
      [0.45, 0.55],
      [0.9, 1],
    ])
      expect(share(from, to)).toBeCloseTo((within(from, to) + within(1 - to, 1 - from)) / 2, 1);
    expect(Math.min(...u)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...u)).toBeLessThanOrEqual(1);
  });

  it('weights the loss', () => {
    const sigmas = Float32Array.of(0.1, 0.5, 0.9);
    expect(rounded(flowWeights('none', sigmas))).toEqual([1, 1, 1]);
    expect(rounded(flowWeights('sigma_sqrt', sigmas))).toEqual([100, 4, 1.2346]);
    expect(rounded(flowWeights('cosmap', sigmas))).toEqual([0.77637, 1.2732, 0.77637]);
  });
});
