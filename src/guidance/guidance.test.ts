import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { cfg, type Guider, guide, guidePrediction, negative, positive, rescaleGuidance } from './index.js';

const step = (index: number, total = 10) => ({ index, total, timestep: 0 });
const values = (x: { data: unknown }) => [...(x.data as Float32Array)];

/** Runs a guider on predictions [1, C] given as lists by branch name. */
async function guided(guider: Guider, given: Record<string, number[]>, index = 0, channels?: number) {
  const names = Object.keys(given);
  const width = given[names[0]].length;
  const run = compile(
    (inputs: Tensor, predictions: readonly Tensor[]) =>
      guidePrediction(guider, new Map(predictions.map((p, i) => [names[i], p])), inputs, [], channels ?? width)
        .prediction,
  );
  const arrays = names.map((name) => ndarray(given[name], [1, width]));
  return values(await run(ndarray([...guider.inputs(step(index))]), arrays));
}

describe('cfg', () => {
  const given = { positive: [1, 2], negative: [0, 4] };

  it('is the conditional prediction at 1, the unconditional one at 0, and extrapolates beyond', async () => {
    expect(await guided(cfg(1), given)).toEqual([1, 2]);
    expect(await guided(cfg(0), given)).toEqual([0, 4]);
    expect(await guided(cfg(3), given)).toEqual([3, -2]);
  });

  it('asks only for what it uses', () => {
    expect(cfg(3).branches(step(0))).toEqual([positive, negative]);
    expect(cfg(1).branches(step(0))).toEqual([positive]);
    expect(cfg(0).branches(step(0))).toEqual([negative]);
    const timed = cfg(3, { interval: [0.2, 0.55] });
    expect([0, 1, 2, 4, 5].map((i) => timed.branches(step(i)).length)).toEqual([1, 1, 2, 2, 1]);
  });

  it("takes the paper's scale by name", async () => {
    expect(await guided(cfg(2, { convention: 'paper' }), given)).toEqual([3, -2]);
    expect(cfg(0, { convention: 'paper' }).branches(step(0))).toEqual([positive]);
  });

  it('takes a scale and an interval as functions of the step', () => {
    const scheduled = cfg(({ index }) => 1 + index, { interval: ({ index }) => index < 3 });
    expect([0, 2, 3].map((i) => scheduled.inputs(step(i))[0])).toEqual([1, 3, 1]);
  });

  it('leaves further channels to the conditional branch', async () => {
    const wide = { positive: [1, 2, 7, 8], negative: [0, 4, 5, 6] };
    expect(await guided(cfg(3), wide, 0, 2)).toEqual([3, -2, 7, 8]);
    expect(await guided(cfg(3, { channels: 1 }), wide, 0, 2)).toEqual([3, 2, 7, 8]);
    await expect(guided(cfg(3, { channels: 5 }), wide)).rejects.toThrow('5 channels to guide, the prediction has 4');
  });

  it('refuses intervals and rescales that make no sense', () => {
    expect(() => cfg(2, { interval: [0.5, 0.2] })).toThrow('interval [0.5, 0.2] must be rising and inside [0, 1]');
    expect(() => cfg(2, { rescale: 2 })).toThrow('rescale must lie in [0, 1], got 2');
  });
});

describe('rescaleGuidance', () => {
  it("gives each sample the conditional one's unbiased standard deviation", async () => {
    const run = compile((a: Tensor, b: Tensor, share: Tensor) => rescaleGuidance(a, b, share));
    const [wide, narrow] = [ndarray([2, 6, 4, 4.5], [2, 2]), ndarray([1, 2, 3, 5], [2, 2])];
    // deviations 4/sqrt2 and 0.5/sqrt2 against 1/sqrt2 and 2/sqrt2
    expect(values(await run(wide, narrow, ndarray([1])))).toEqual([0.5, 1.5, 16, 18]);
    expect(values(await run(wide, narrow, ndarray([0.5])))).toEqual([1.25, 3.75, 10, 11.25]);
  });
});

describe('guide', () => {
  const towards = (name: string, scale: number): Guider => ({
    slots: 1,
    inputCount: 1,
    branches: () => [positive, { name, condition: 'positive', perturb: () => new Map() }],
    inputs: () => [scale],
    combine: (predictions, inputs, state) => ({
      prediction: predictions.get('positive')!.add(predictions.get(name)!.mul(inputs)),
      state: state.map((s) => s.add(1)),
    }),
  });

  it('sums what each guider adds and asks for every branch once', async () => {
    const both = guide(cfg(3), towards('odd', 2), { channels: 2 });
    expect(both.branches(step(0)).map((b) => b.name)).toEqual(['positive', 'negative', 'odd']);
    expect(both.inputs(step(0))).toEqual([1, 0, 3, 0, 2]);
    expect(both.inputCount).toBe(5);
    const run = compile((inputs: Tensor, p: readonly Tensor[], state: Tensor) => {
      const predictions = new Map(['positive', 'negative', 'odd'].map((name, i) => [name, p[i]]));
      const result = both.combine(predictions, inputs, [state]);
      return { prediction: result.prediction, state: result.state[0] };
    });
    const p = [
      [1, 2],
      [0, 4],
      [10, 20],
    ].map((x) => ndarray(x, [1, 2]));
    const result = await run(ndarray([1, 0, 3, 0, 2]), p, ndarray([0, 5], [1, 2]));
    expect(values(result.prediction)).toEqual([23, 38]);
    expect(values(result.state)).toEqual([1, 6]);
  });

  it('needs only the conditional branch outside its interval', async () => {
    const timed = guide(cfg(3), towards('odd', 2), { interval: [0, 0.5] });
    expect(timed.branches(step(5))).toEqual([positive]);
    expect(await guided(timed, { positive: [1, 2] }, 5)).toEqual([1, 2]);
  });
});
