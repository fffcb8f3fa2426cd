import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import {
  applyStep,
  coefficientsOf,
  ddim,
  ddpm,
  dpmSolverMultistep,
  euler,
  initialState,
  type SamplerPlan,
  scaleInput,
} from './index.js';

const shape = [2, 1, 2, 2];
const noise = ndarray([0.5, -1.2, 2.5, 0.1, -0.3, 0.8, 1.1, -2], shape);

/** A compiled step whose denoiser answers 0.3 x, and its channels twice where `channels` is 2. */
const compiled = (plan: SamplerPlan, channels = 1) =>
  compile((coefficients: Tensor, state: readonly Tensor[], noise: Tensor) => {
    const mean = scaleInput(plan.layout, coefficients, state[0]).mul(0.3);
    const prediction = channels === 1 ? mean : mean.expand([2, channels, 2, 2]);
    return applyStep(plan.layout, { coefficients, state, prediction, noise });
  });
const values = (x: NdArray) => [...(x.data as Float32Array)];
const closeTo = (got: number[], expected: number[]) => {
  expect(got).toHaveLength(expected.length);
  for (const [i, x] of got.entries()) expect(x).toBeCloseTo(expected[i], 5);
};

describe('applyStep', () => {
  it('does what the table says', async () => {
    const plan = euler().plan({ steps: 3 });
    const { state, x0 } = await compiled(plan)(coefficientsOf(plan, 1), [noise], noise);
    const { sigma, inputScale } = plan.calls[1];
    const next = plan.calls[2].sigma;
    const prediction = (x: number) => 0.3 * inputScale * x;
    closeTo(
      values(x0),
      values(noise).map((x) => x - sigma * prediction(x)),
    );
    closeTo(
      values(state[0]),
      values(noise).map((x) => x + (next - sigma) * prediction(x)),
    );
  });

  it('clips x0, and thresholds it per sample at the quantile', async () => {
    const clipped = ddim({ clipSampleRange: 0.5 }).plan({ steps: 4 });
    const { x0 } = await compiled(clipped)(coefficientsOf(clipped, 3), [noise], noise);
    expect(Math.max(...values(x0))).toBe(0.5);
    const thresholded = ddim({
      thresholding: true,
      dynamicThresholdingRatio: 0.5,
      sampleMaxValue: 1.5,
      predictionType: 'sample',
    });
    const plan = thresholded.plan({ steps: 4 });
    const big = ndarray([4, -8, 6, 2, 5, -4, 3, 0.6], shape); // the denoiser answers 1.2 -2.4 1.8 0.6 and 1.5 -1.2 0.9 0.18
    const result = await compiled(plan)(coefficientsOf(plan, 2), [big], noise);
    closeTo(values(result.x0), [0.8, -1, 1, 0.4, 1, -1, 0.9 / 1.05, 0.18 / 1.05]);
  });

  it('scales noise by a learned variance', async () => {
    const zero = ndarray(new Float32Array(8), shape);
    const plan = ddpm({ varianceType: 'learned_range', clipSample: false }).plan({ steps: 5 });
    const step = compiled(plan, 2);
    const [withNoise, without] = await Promise.all([
      step(coefficientsOf(plan, 1), [noise], noise),
      step(coefficientsOf(plan, 1), [noise], zero),
    ]);
    const { base, slope } = plan.calls[1].logStd!;
    const expected = values(noise).map((x) => Math.exp(base + slope * 0.3 * x) * x);
    closeTo(
      values(withNoise.state[0]).map((x, i) => x - values(without.state[0])[i]),
      expected,
    );
    await expect(compiled(plan, 1)(coefficientsOf(plan, 1), [noise], noise)).rejects.toThrow('needs 2 channels, got 1');
    await expect(compiled(plan, 3)(coefficientsOf(plan, 1), [noise], noise)).rejects.toThrow(
      'x has 1 channels, the prediction 3',
    );
  });

  it('lets two runs take turns', async () => {
    const plan = dpmSolverMultistep().plan({ steps: 4 });
    const step = compiled(plan);
    const alone = async (x: NdArray<'float32'>) => {
      let state: readonly NdArray[] = initialState(plan.layout, x);
      for (let k = 0; k < 4; k++) state = (await step(coefficientsOf(plan, k), state, noise)).state;
      return values(state[0]);
    };
    const other = ndarray(
      values(noise).map((x) => 1 - x),
      shape,
    );
    const separately = [await alone(noise), await alone(other)];
    expect(await Promise.all([alone(noise), alone(other)])).toEqual(separately);
  });

  it('runs every number of steps through one graph', async () => {
    const short = dpmSolverMultistep().plan({ steps: 4 });
    const long = dpmSolverMultistep().plan({ steps: 30 });
    expect(coefficientsOf(short, 0).shape).toEqual(coefficientsOf(long, 0).shape);
  });
});
