import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { forFrozenCpu } from './frozenCpu.js';
import { reachable } from './graph.js';
import {
  compile,
  conv2d,
  gradients,
  groupNorm,
  linear,
  resizeNearest,
  scaledDotProductAttention,
  silu,
  type Tensor,
  variable,
} from './index.js';

const rng = new Generator(0);
const farthest = (a: Float32Array, b: Float32Array): number =>
  b.reduce((most, x, i) => Math.max(most, Math.abs(x - a[i])), 0);

describe('a convolution of few pixels with many weights', () => {
  const w = variable(rng.randn([1024, 1024, 3, 3]));
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
    const x = rng.randn([2, 1024, size, size]);
    const [plain, product] = [false, true].map((freeze) => compile(f, { freeze }));
    const [a, b] = [await plain(x), await product(x)];
    expect(b.shape).toEqual(a.shape);
    // Sums of 9216 products of deviation 1, whose size is 96.
    expect(farthest(a.data as Float32Array, b.data as Float32Array)).toBeLessThan(96e-5);
    expect(ops(f, x.shape)).toContain('matmul');
    await plain.release();
    await product.release();
  });

  it('stays a convolution of many pixels, and of few weights', () => {
    expect(ops((x) => conv2d(x, w, bias, { padding: 1 }), [1, 1024, 16, 17])).toContain('conv2d');
    const narrow = variable(rng.randn([64, 64, 3, 3]));
    expect(ops((x) => conv2d(x, narrow), [1, 64, 8, 8])).toContain('conv2d');
  });

  const ops = (f: (x: Tensor) => Tensor, shape: readonly number[]): string[] =>
    reachable(forFrozenCpu([f(variable(rng.randn(shape)))])).map(({ op }) => op.name);
});

describe('products of many rows', () => {
  const [w, v] = [variable(rng.randn([256, 128])), variable(rng.randn([128, 256]))];
  const bias = variable(rng.randn([256]));
  const f = (x: Tensor) => linear(silu(linear(x.mul(0.1), w, bias)).mul(0.1), v);

  it('are convolutions of one pixel, from weights laid out on the host', async () => {
    const x = rng.randn([161, 128]);
    const run = compile(f, { freeze: true });
    // A number of rows that blocks do not take, and one that they do.
    const plain = await run(x);
    const blocked = await run(ndarray(x.data.slice(0, 160 * 128), [160, 128]));
    expect(blocked.shape).toEqual([160, 128]);
    expect(farthest(blocked.data as Float32Array, (plain.data as Float32Array).slice(0, 160 * 128))).toBeLessThan(1e-4);
    const ops = operations([160, 128]);
    expect(ops.filter((name) => name === 'blockedConv')).toHaveLength(2);
    expect(ops).not.toContain('linear');
    await run.release();
  });

  it.each([8, 16, 64])('go on from heads of %i numbers', async (size) => {
    const [w, v] = [0, 1].map(() => variable(rng.randn([128, 128])));
    const heads = (x: Tensor) => x.reshape([3, 80, 128 / size, size]).transpose([0, 2, 1, 3]);
    const f = (x: Tensor) => {
      const first = linear(x, w.mul(0.1));
      const y = linear(heads(first).tanh().transpose([0, 2, 1, 3]).reshape(x.shape), v.mul(0.1));
      const again = heads(silu(y).add(first)).tanh();
      return [y, again, linear(y.transpose([0, 2, 1]).tanh().transpose([0, 2, 1]), w.mul(0.1))];
    };
    const all = (x: Tensor) => {
      const results = f(x);
      return [
        ...results,
        ...gradients(
          results.map((y) => y.tanh().sum()).reduce((a, b) => a.add(b)),
          [x, w, v],
        ),
      ];
    };
    const x = rng.randn([3, 80, 128]);
    const [plain, frozen] = [false, true].map((freeze) => compile(all, { freeze }));
    const [expected, results] = [await plain(x), await frozen(x)];
    for (const [i, { data, shape }] of expected.entries()) {
      expect(results[i].shape).toEqual(shape);
      const values = data as Float32Array;
      const largest = farthest(new Float32Array(values.length), values);
      expect(farthest(values, results[i].data as Float32Array) / largest, `result ${i}`).toBeLessThan(1e-5);
    }
    await plain.release();
    await frozen.release();
  });

  it('stay products where rows, columns or weights do not suit', () => {
    expect(operations([161, 128])).not.toContain('blockedConv');
    const narrow = variable(rng.randn([48, 128]));
    expect(operations([160, 128], (x) => linear(x, narrow))).toContain('linear');
    const large = variable(rng.randn([640, 512]));
    expect(operations([160, 512], (x) => linear(x, large))).toContain('linear');
  });

  const operations = (shape: readonly number[], of = f): string[] =>
    reachable(forFrozenCpu([of(variable(rng.randn(shape)))], 16)).map(({ op }) => op.name);
});

describe('a convolution of doubled pixels', () => {
  it.each([
    ['with bias', [2, 128, 32, 24], 64, true],
    ['without', [1, 144, 40, 32], 32, false],
    ['few channels', [8, 16, 12, 14], 32, true],
  ] as const)('is the same as four of the pixels themselves: %s', async (_, shape, channels, withBias) => {
    const w = variable(rng.randn([channels, shape[1], 3, 3]));
    const bias = withBias ? variable(rng.randn([channels])) : undefined;
    const f = (x: Tensor) => conv2d(resizeNearest(x, [2 * shape[2], 2 * shape[3]]), w, bias, { padding: 1 });
    const [plain, frozen] = [false, true].map((freeze) => compile(f, { freeze }));
    const x = rng.randn(shape);
    const [a, b] = [await plain(x), await frozen(x)];
    expect(b.shape).toEqual(a.shape);
    // Sums of up to 1296 products of deviation 1, whose size is 36.
    expect(farthest(a.data as Float32Array, b.data as Float32Array)).toBeLessThan(36e-5);
    const ops = reachable(forFrozenCpu([f(variable(x))], 16)).map(({ op }) => op.name);
    expect(ops.filter((name) => name === 'blockedConv').length).toBe(4);
    await plain.release();
    await frozen.release();
  });

  it('stays one of few pixels, of another kernel, and where there is no blocked layout', () => {
    const names = (size: number, kernel: number, block?: number, channels = 128) => {
      const shapes = [
        [1, channels, size, size],
        [16, channels, kernel, kernel],
      ];
      const [x, w] = shapes.map((shape) => variable(rng.randn(shape)));
      const y = conv2d(resizeNearest(x, [2 * size, 2 * size]), w, undefined, { padding: (kernel - 1) / 2 });
      return reachable(forFrozenCpu([y], block)).map(({ op }) => op.name);
    };
    const convolutions = (...from: Parameters<typeof names>) => names(...from).filter((name) => /conv/i.test(name));
    expect(convolutions(32, 3, 16)).toEqual(Array(4).fill('blockedConv'));
    expect(convolutions(31, 3, 16)).toEqual(['blockedConv']);
    expect(convolutions(32, 1, 16)).toEqual(['conv2d']);
    expect(convolutions(32, 3, 16, 24)).toEqual(['conv2d']);
    expect(convolutions(32, 3)).toEqual(['conv2d']);
  });
});

describe('a group norm of many numbers, with frozen weights', () => {
  const [w, scale, shift] = [[32, 16, 3, 3], [32], [32]].map((shape) => variable(rng.randn(shape)));
  /** Of deviation 12, and of this mean. */
  const convolved = (x: Tensor, mean: number) =>
    conv2d(x, w, variable(ndarray(new Float32Array(32).fill(mean), [32])), { padding: 1 });

  it.each([
    ['around zero', [4, 16, 32, 24], 0],
    ['far from zero', [4, 16, 32, 24], 100],
    ['of many positions', [1, 16, 80, 64], 100],
  ] as const)('is the same in blocks: %s', async (_, shape, mean) => {
    const f = (x: Tensor, offset: Tensor) => groupNorm(convolved(x, mean).add(offset), 8, scale, shift);
    const [plain, frozen] = [false, true].map((freeze) => compile(f, { freeze }));
    const inputs = [rng.randn(shape), rng.randn([shape[0], 32, 1, 1])] as const;
    const [a, b] = [await plain(...inputs), await frozen(...inputs)];
    expect(farthest(a.data as Float32Array, b.data as Float32Array)).toBeLessThan(1e-5);
    await plain.release();
    await frozen.release();
  });

  it('of equal numbers is the shift', async () => {
    const run = compile((x: Tensor) => groupNorm(convolved(x.mul(0), 3), 8, scale, shift), { freeze: true });
    const { data } = await run(rng.randn([4, 16, 32, 24]));
    // The rounding of a mean of 3, divided by sqrt(eps): 1e-4.
    for (const [channel, value] of (shift.value.data as Float32Array).entries())
      expect((data as Float32Array)[channel * 32 * 24]).toBeCloseTo(value, 3);
    await run.release();
  });
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
