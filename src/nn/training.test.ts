import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import {
  BatchNorm,
  Dropout,
  dropLabels,
  dropout,
  FeedForward,
  type FeedForwardActivation,
  InstanceNorm2d,
  inTraining,
  type Module,
  ResnetBlock2D,
} from './index.js';

const numbers = (x: NdArray): number[] => Array.from(x.data, Number);

describe('dropout', () => {
  const ones = ndarray(new Float32Array(4000).fill(1));

  it('zeroes with its probability and keeps the mean, anew at each call', async () => {
    const rng = new Generator(5);
    const f = compile((x: Tensor) => inTraining(() => dropout(x, 0.25), rng));
    const [first, second] = [numbers(await f(ones)), numbers(await f(ones))];
    expect(new Set(first)).toEqual(new Set([0, Math.fround(1 / 0.75)]));
    expect(first.filter((x) => x === 0).length / 4000).toBeCloseTo(0.25, 1);
    expect(first).not.toEqual(second);
  });

  it('is the identity in evaluation, and needs a generator in training', async () => {
    const f = compile((x: Tensor) => {
      expect(dropout(x, 0.5)).toBe(x);
      expect(() => inTraining(() => dropout(x, 0.5))).toThrow('dropout: needs a generator');
      return x.add(1);
    });
    await f(ones);
    expect(() => new Dropout(1.5)).toThrow('probability 1.5');
  });

  it('replaces labels by the null class', async () => {
    const labels = ndarray(Array(2000).fill(3), [2000], 'int64');
    const f = compile((x: Tensor) => inTraining(() => dropLabels(x, 10, 0.1), new Generator(2)));
    const dropped = numbers(await f(labels));
    expect(new Set(dropped)).toEqual(new Set([3, 10]));
    expect(dropped.filter((x) => x === 10).length / 2000).toBeCloseTo(0.1, 1);
  });
});

describe('BatchNorm', () => {
  const batch = ndarray([1, 3, 5, 7, 2, 2, 6, 6], [4, 2]); // columns: mean 3.5 and 4.5

  it('normalises by the batch and moves its statistics after the call', async () => {
    const norm = new BatchNorm(2, { momentum: 0.5 });
    const f = compile((x: Tensor) => inTraining(() => norm.forward(x)));
    const y = numbers(await f(batch));
    const column = [1, 5, 2, 6].map((x) => (x - 3.5) / Math.sqrt(4.25 + 1e-5)); // biased variance 4.25
    [0, 2, 4, 6].forEach((at, i) => {
      expect(y[at]).toBeCloseTo(column[i], 5);
    });
    expect(numbers(norm.runningMean!.value)[0]).toBeCloseTo(1.75, 5);
    expect(numbers(norm.runningVar!.value)[0]).toBeCloseTo(0.5 + (0.5 * 17) / 3, 5); // unbiased variance 17/3
    expect(norm.numBatchesTracked!.value.data[0]).toBe(1n);
  });

  it('averages over all batches without a momentum', async () => {
    const norm = new BatchNorm(2, { momentum: null });
    const f = compile((x: Tensor) => inTraining(() => norm.forward(x)));
    for (const shift of [0, 4])
      await f(
        ndarray(
          numbers(batch).map((x) => x + shift),
          [4, 2],
        ),
      );
    expect(numbers(norm.runningMean!.value)[0]).toBeCloseTo(5.5, 5);
  });

  it('says what does not fit', () => {
    const build = (shape: number[], norm: Module & { forward(x: Tensor): Tensor }) =>
      compile((x: Tensor) => inTraining(() => norm.forward(x)))(
        ndarray(new Float32Array(shape.reduce((a, b) => a * b)), shape),
      );
    return Promise.all([
      expect(build([1, 2], new BatchNorm(2))).rejects.toThrow('more than one value per channel'),
      expect(build([4, 3], new BatchNorm(2))).rejects.toThrow('input [4,3], expected 2 channels'),
      expect(build([4, 2], new InstanceNorm2d(2))).rejects.toThrow('at least 3 axes'),
    ]);
  });
});

describe('recomputed activations', () => {
  const gradientsOf = async (module: Module & { forward(x: Tensor): Tensor }, x: NdArray, trained: boolean) => {
    const f = compile((x: Tensor) => {
      const loss = () => module.forward(x).square().sum();
      return gradients(trained ? inTraining(loss) : loss(), [x, ...module.parameters()]);
    });
    return (await f(x)).flatMap(numbers);
  };

  it.each<FeedForwardActivation>(['gelu', 'gelu-approximate', 'geglu', 'geglu-approximate', 'swiglu'])(
    'give the gradients of kept ones: %s',
    async (activationFn) => {
      const module = new FeedForward({ dim: 4, activationFn }, new Generator(0));
      const x = new Generator(1).randn([3, 4]);
      expect(await gradientsOf(module, x, true)).toEqual(await gradientsOf(module, x, false));
    },
  );

  it('give the gradients of kept ones: residual block', async () => {
    const module = new ResnetBlock2D(
      { inChannels: 4, outChannels: 2, tembChannels: null, groups: 2 },
      new Generator(0),
    );
    const x = new Generator(1).randn([2, 4, 3, 3]);
    const kept = await gradientsOf(module, x, false); // which the engine's optimiser has fused otherwise
    for (const [i, value] of (await gradientsOf(module, x, true)).entries()) expect(value).toBeCloseTo(kept[i], 5);
  });
});
