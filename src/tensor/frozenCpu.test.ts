import { describe, expect, it } from 'vitest';
import { Generator } from '../random/index.js';
import { forFrozenCpu } from './frozenCpu.js';
import { reachable } from './graph.js';
import { compile, conv2d, gradients, scaledDotProductAttention, type Tensor, variable } from './index.js';

const rng = new Generator(0);
const farthest = (a: Float32Array, b: Float32Array): number =>
  b.reduce((most, x, i) => Math.max(most, Math.abs(x - a[i])), 0);

describe('a convolution of few pixels with many weights', () => {
  const w = variable(rng.randn([1024, 128, 3, 3]));
  const bias = variable(rng.randn([1024]));

  it.each([
    ['plain', 9, {}],
    ['padded', 8, { padding: 1 }],
    [
      'in steps, padded on one side',
      16,
      {
        stride: 2,
        padding: [
          [0, 1],
          [0, 1],
        ],
      },
    ],
    ['dilated', 9, { dilation: [2, 1], padding: [2, 0] }],
  ] as const)('is the same as one product: %s', async (_, size, options) => {
    const f = (x: Tensor) => conv2d(x, w, bias, options);
    const x = rng.randn([2, 128, size, size]);
    const [plain, product] = [false, true].map((freeze) => compile(f, { freeze }));
    const [a, b] = [await plain(x), await product(x)];
    expect(b.shape).toEqual(a.shape);
    // Sums of 1152 products of deviation 1, whose size is 34.
    expect(farthest(a.data as Float32Array, b.data as Float32Array)).toBeLessThan(34e-5);
    expect(ops(f, x.shape)).toContain('matmul');
    await plain.release();
    await product.release();
  });

  it('stays a convolution of many pixels, and of few weights', () => {
    expect(ops((x) => conv2d(x, w, bias, { padding: 1 }), [1, 128, 16, 17])).toContain('conv2d');
    const narrow = variable(rng.randn([64, 64, 3, 3]));
    expect(ops((x) => conv2d(x, narrow), [1, 64, 8, 8])).toContain('conv2d');
  });

  const ops = (f: (x: Tensor) => Tensor, shape: readonly number[]): string[] =>
    reachable(forFrozenCpu([f(variable(rng.randn(shape)))])).map(({ op }) => op.name);
});

describe('attention over many tokens, with frozen weights', () => {
  const inputs = (heads: number, queries: number, keys: number, width: number, ofValues = width) =>
    [
      [queries, width],
      [keys, width],
      [keys, ofValues],
    ].map((shape) => rng.randn([2, heads, ...shape]));

  async function difference(xs: ReturnType<typeof inputs>, attend: (...x: Tensor[]) => Tensor): Promise<number> {
    const [a, b] = await both(xs, attend);
    return farthest(a, b);
  }

  async function both(xs: ReturnType<typeof inputs>, attend: (...x: Tensor[]) => Tensor): Promise<Float32Array[]> {
    const [plain, blocked] = [false, true].map((freeze) => compile((x: readonly Tensor[]) => attend(...x), { freeze }));
    const results = [await plain(xs), await blocked(xs)].map(({ data }) => data as Float32Array);
    expect(results[1].length).toBe(results[0].length);
    await plain.release();
    await blocked.release();
    return results;
  }

  it.each([
    ['self-attention', [2, 1024, 1024, 24]],
    ['more keys than queries', [1, 600, 2000, 8]],
    ['values of another width', [2, 1030, 1025, 8, 24]],
    ['few tokens', [2, 8, 8, 4]],
  ] as const)('is the same: %s', async (_, [heads, queries, keys, width, ofValues]) => {
    const xs = inputs(heads, queries, keys, width, ofValues);
    expect(await difference(xs, (q, k, v) => scaledDotProductAttention(q, k, v))).toBeLessThan(1e-5);
    expect(await difference(xs, (q, k, v) => scaledDotProductAttention(q, k, v, { scale: 0.5 }))).toBeLessThan(1e-5);
  });

  it.each([
    [2, 3, 1500, 1600],
    [1, 1, 1, 1600],
    [1500, 1],
  ])('is the same with a mask [%s]', async (...shape) => {
    const xs = [...inputs(3, 1500, 1600, 4), rng.randn(shape)];
    expect(await difference(xs, (q, k, v, mask) => scaledDotProductAttention(q, k, v, { mask }))).toBeLessThan(1e-5);
    const kept = (q: Tensor, k: Tensor, v: Tensor, mask: Tensor) =>
      scaledDotProductAttention(q, k, v, { mask: mask.greater(-1) });
    expect(await difference(xs, kept as (...x: Tensor[]) => Tensor)).toBeLessThan(1e-5);
  });

  it('goes in blocks without a mask, in slices with a large one, and whole where it is small or differentiated', () => {
    const parts = (heads: number, tokens: number, masked: boolean, slope = false) => {
      const [q, k, v] = [0, 1, 2].map(() => variable(rng.randn([1, heads, tokens, 4])));
      const mask = masked ? variable(rng.randn([tokens])) : undefined;
      const y = scaledDotProductAttention(q, k, v, { mask });
      const names = reachable(forFrozenCpu(slope ? gradients(y.sum(), [q]) : [y])).map(({ op }) => op.name);
      return ['attention', 'attend', 'softmax'].filter((name) => names.includes(name)).join();
    };
    expect(parts(1, 1024, false)).toBe('attention');
    expect(parts(1, 1000, false)).toBe('attend');
    expect(parts(1, 1024, true)).toBe('attend');
    expect(parts(9, 1024, true)).toBe('softmax');
    expect(parts(1, 1024, false, true)).toBe('attend');
  });

  it('leaves gradients alone', async () => {
    const xs = inputs(1, 1024, 1024, 4);
    const slope = (q: Tensor, k: Tensor, v: Tensor) =>
      gradients(scaledDotProductAttention(q, k, v).square().sum(), [q])[0];
    expect(await difference(xs, slope as (...x: Tensor[]) => Tensor)).toBeLessThan(1e-5);
  });
});
