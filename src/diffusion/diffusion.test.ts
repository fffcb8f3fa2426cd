import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import {
  addNoise,
  convertPrediction,
  denoisingLoss,
  hybridLoss,
  linspaceFloat32,
  noiseSchedule,
  type PredictionType,
  predictedNoise,
  predictedX0,
  predictionTarget,
  predictionTypes,
  RectifiedFlow,
  roundHalfToEven,
  shiftSigma,
  VariancePreserving,
} from './index.js';

const values = (x: { data: unknown }) => [...(x.data as Float32Array)];

describe('noise schedules', () => {
  it('linear and scaled linear run from the first beta to the last', () => {
    for (const betaSchedule of ['linear', 'scaled_linear'] as const) {
      const { betas, alphasCumprod } = noiseSchedule({
        betaSchedule,
        betaStart: 0.001,
        betaEnd: 0.01,
        numTrainTimesteps: 20,
      });
      expect(betas[0]).toBeCloseTo(0.001, 9);
      expect(betas[19]).toBeCloseTo(0.01, 8);
      expect(alphasCumprod[1]).toBeCloseTo((1 - betas[0]) * (1 - betas[1]), 7);
    }
  });

  it('cosine follows equation 17 and never exceeds 0.999', () => {
    const { betas, alphasCumprod } = noiseSchedule({ betaSchedule: 'squaredcos_cap_v2' });
    const alphaBar = (t: number) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2;
    expect(alphasCumprod[499]).toBeCloseTo(alphaBar(0.5) / alphaBar(0), 5);
    expect(betas[999]).toBe(Math.fround(0.999));
  });

  it('zero terminal SNR keeps the first level and ends at 0', () => {
    const before = noiseSchedule({ betaSchedule: 'scaled_linear', betaStart: 0.00085, betaEnd: 0.012 });
    const after = noiseSchedule({
      betaSchedule: 'scaled_linear',
      betaStart: 0.00085,
      betaEnd: 0.012,
      rescaleBetasZeroSnr: true,
    });
    expect(after.alphasCumprod[0]).toBeCloseTo(before.alphasCumprod[0], 6);
    expect(after.alphasCumprod[999]).toBe(0);
  });

  it('takes given betas and refuses impossible ones', () => {
    expect(values({ data: noiseSchedule({ trainedBetas: [0.5, 0.5] }).alphasCumprod })).toEqual([0.5, 0.25]);
    expect(() => noiseSchedule({ trainedBetas: [0.5, 1.5] })).toThrow('beta 1 must lie in [0, 1), got 1.5');
  });

  it('every schedule starts near no noise and ends near pure noise', () => {
    for (const betaSchedule of ['linear', 'squaredcos_cap_v2', 'sigmoid', 'laplace'] as const) {
      const { alphasCumprod } = noiseSchedule({ betaSchedule });
      expect(alphasCumprod[0]).toBeGreaterThan(0.5);
      expect(alphasCumprod[999]).toBeLessThan(0.04);
    }
  });
});

describe('numbers', () => {
  it('halves round to even', () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6].map(roundHalfToEven)).toEqual([0, 2, 2, 0, -2, 2, 3]);
  });
  it('linspaceFloat32 is exact at both ends', () => {
    const x = linspaceFloat32(0.1, 0.7, 33);
    expect([x[0], x[32], x.length]).toEqual([Math.fround(0.1), Math.fround(0.7), 33]);
    expect([...linspaceFloat32(3, 5, 1)]).toEqual([3]);
  });
});

describe('processes and predictions', () => {
  const x0 = ndarray([0.5, -0.2, 0.9, 0.1], [2, 2]);
  const noise = ndarray([1.5, -0.7, 0.3, -1], [2, 2]);
  const processes = {
    preserving: [new VariancePreserving(noiseSchedule()), ndarray([600, 20], [2], 'int64'), ['epsilon', 'x0', 'v']],
    flow: [new RectifiedFlow(), ndarray([600, 20], [2]), ['epsilon', 'x0', 'flow']],
  } as const;

  it.each(Object.entries(processes))(
    '%s: every prediction leads back to x0 and the noise',
    async (_, [process, t, types]) => {
      for (const type of types as readonly PredictionType[]) {
        const run = compile((x0: Tensor, noise: Tensor, t: Tensor) => {
          const levels = process.levels(t);
          const x = addNoise(x0, noise, levels);
          const prediction = predictionTarget(type, x0, noise, levels);
          return {
            x0: predictedX0(type, prediction, x, levels),
            noise: predictedNoise(type, prediction, x, levels),
            converted: types.map((to) => convertPrediction(type, to, prediction, x, levels)),
            targets: types.map((to) => predictionTarget(to, x0, noise, levels)),
          };
        });
        const result = await run(x0, noise, t);
        for (const [i, x] of values(result.x0).entries()) expect(x).toBeCloseTo(values(x0)[i], 5);
        for (const [i, x] of values(result.noise).entries()) expect(x).toBeCloseTo(values(noise)[i], 4);
        for (const [j, converted] of result.converted.entries())
          for (const [i, x] of values(converted).entries()) expect(x).toBeCloseTo(values(result.targets[j])[i], 4);
      }
    },
  );

  it('know the four predictions', () => expect(predictionTypes).toEqual(['epsilon', 'x0', 'v', 'flow']));

  it('shift moves a level towards noise', () => {
    expect(shiftSigma(0.5, 3)).toBeCloseTo(0.75, 12);
    expect([0, 1].map((sigma) => shiftSigma(sigma, 3))).toEqual([0, 1]);
  });

  it('weights count samples differently', async () => {
    const run = compile((a: Tensor, b: Tensor, w: Tensor) => ({
      plain: denoisingLoss(a, b),
      weighted: denoisingLoss(a, b, w),
    }));
    const { plain, weighted } = await run(x0, noise, ndarray([2, 0]));
    const errors = [(1 + 0.25) / 2, (0.36 + 1.21) / 2];
    expect(values(plain)[0]).toBeCloseTo((errors[0] + errors[1]) / 2, 6);
    expect(values(weighted)[0]).toBeCloseTo(errors[0], 6);
  });
});

describe('hybrid loss', () => {
  const schedule = noiseSchedule({ numTrainTimesteps: 100, betaEnd: 0.1 });
  const x0 = ndarray([0.5, -0.25], [2, 1, 1]);
  const noise = ndarray([0.8, -1.1], [2, 1, 1]);
  const t = ndarray([40, 0], [2], 'int64');
  const answer = ndarray([0.6, 0.3, -1, -0.4], [2, 2, 1]);
  const loss = (x0: Tensor, noise: Tensor, timesteps: Tensor, prediction: Tensor) =>
    hybridLoss(schedule, { x0, noise, timesteps, prediction, type: 'epsilon' });

  /** The same by hand in float64, for one number. */
  function byHand(x0: number, noise: number, t: number, epsilon: number, v: number): number {
    const [alphaBar, before] = [schedule.alphasCumprod[t], t ? schedule.alphasCumprod[t - 1] : 1];
    const beta = schedule.betas[t];
    const x = Math.sqrt(alphaBar) * x0 + Math.sqrt(1 - alphaBar) * noise;
    const clean = (x - Math.sqrt(1 - alphaBar) * epsilon) / Math.sqrt(alphaBar);
    const mean = (x0: number) =>
      (Math.sqrt(before) * beta * x0 + Math.sqrt(1 - beta) * (1 - before) * x) / (1 - alphaBar);
    const s = Math.max(t, 1);
    const low = Math.log((schedule.betas[s] * (1 - schedule.alphasCumprod[s - 1])) / (1 - schedule.alphasCumprod[s]));
    const logVariance = ((1 - v) / 2) * low + ((1 + v) / 2) * Math.log(beta);
    const gap = mean(x0) - mean(clean);
    const divergence = 0.5 * (logVariance - low - 1 + Math.exp(low - logVariance) + gap ** 2 / Math.exp(logVariance));
    const cdf = (z: number) => 0.5 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3)));
    const [z, width] = [(x0 - mean(clean)) / Math.exp(logVariance / 2), 1 / 255 / Math.exp(logVariance / 2)];
    const bound = t === 0 ? -Math.log(cdf(z + width) - cdf(z - width)) : divergence;
    return (noise - epsilon) ** 2 + bound / Math.LN2;
  }

  it('is the simple loss plus the bound in bits', async () => {
    const expected = (byHand(0.5, 0.8, 40, 0.6, 0.3) + byHand(-0.25, -1.1, 0, -1, -0.4)) / 2;
    expect(values(await compile(loss)(x0, noise, t, answer))[0]).toBeCloseTo(expected, 4);
  });

  it('teaches the mean by the simple loss only', async () => {
    const run = compile((a: Tensor, b: Tensor, c: Tensor, d: Tensor) => gradients(loss(a, b, c, d), [d])[0]);
    const [mean0, v0, mean1] = values(await run(x0, noise, t, answer));
    expect(mean0).toBeCloseTo(0.6 - 0.8, 5);
    expect(mean1).toBeCloseTo(-1 + 1.1, 5);
    expect(v0).not.toBe(0);
  });

  it('asks for twice the channels', async () => {
    const narrow = compile((a: Tensor, b: Tensor, c: Tensor) => loss(a, b, c, b));
    await expect(narrow(x0, noise, t)).rejects.toThrow('expected 2 channels of prediction, got 1');
  });
});
