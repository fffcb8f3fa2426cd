import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, conv2d, linear, resizeNearest, type Tensor, variable } from './index.js';
import { quantize } from './quantize.js';

const rng = new Generator(0);
const relativeError = (a: NdArray, b: NdArray): number => {
  const [x, y] = [a.data as Float32Array, b.data as Float32Array];
  const squares = (f: (i: number) => number) => x.reduce((sum, _, i) => sum + f(i) ** 2, 0);
  return Math.sqrt(squares((i) => x[i] - y[i]) / squares((i) => x[i]));
};

async function both(f: (x: Tensor) => Tensor, x: NdArray): Promise<[NdArray, NdArray]> {
  const [plain, rounded] = (['float32', 'int8'] as const).map((weights) => compile(f, { freeze: true, weights }));
  const results: [NdArray, NdArray] = [await plain(x), await rounded(x)];
  await plain.release();
  await rounded.release();
  return results;
}

describe('weights in 8 bits', () => {
  it('are whole numbers times a scale for each output, inputs first', () => {
    const { values, scales } = quantize(ndarray([1, -2, 127, 0, 0, 0, 0.5, 1, 0], [3, 3]));
    expect([values.shape, [...values.data]]).toEqual([
      [3, 3],
      [1, 0, 64, -2, 0, 127, 127, 0, 0],
    ]);
    expect([...scales.data]).toEqual([1, 1, Math.fround(1 / 127)]);
  });

  it('of a kernel stand tap by tap', () => {
    const kernel = ndarray([1, 2, 3, 4, 5, 6, 7, 127], [1, 2, 2, 2]);
    expect([...quantize(kernel).values.data]).toEqual([1, 5, 2, 6, 3, 7, 4, 127]);
  });

  it('give about the same product', async () => {
    const [w, bias] = [variable(rng.randn([256, 300])), variable(rng.randn([256]))];
    const [plain, rounded] = await both((x) => linear(x, w, bias), rng.randn([2, 5, 300]));
    expect(rounded.shape).toEqual([2, 5, 256]);
    expect(relativeError(plain, rounded)).toBeGreaterThan(1e-4);
    expect(relativeError(plain, rounded)).toBeLessThan(0.02);
  });

  it.each([
    ['plain', {}],
    ['padded', { padding: 1 }],
    [
      'in steps, padded on one side',
      {
        stride: 2,
        padding: [
          [0, 1],
          [0, 1],
        ],
      },
    ],
    ['dilated', { dilation: [2, 1], padding: [2, 0] }],
  ] as const)('give about the same convolution: %s', async (_, options) => {
    const [w, bias] = [variable(rng.randn([128, 64, 3, 3])), variable(rng.randn([128]))];
    const [plain, rounded] = await both((x) => conv2d(x, w, bias, options), rng.randn([2, 64, 9, 8]));
    expect(rounded.shape).toEqual(plain.shape);
    expect(relativeError(plain, rounded)).toBeLessThan(0.02);
  });

  it('give about the same convolution of doubled pixels', async () => {
    const [w, bias] = [variable(rng.randn([128, 64, 3, 3])), variable(rng.randn([128]))];
    const f = (x: Tensor) => conv2d(resizeNearest(x, [18, 16]), w, bias, { padding: 1 });
    const [plain, rounded] = await both(f, rng.randn([2, 64, 9, 8]));
    expect(relativeError(plain, rounded)).toBeGreaterThan(1e-4);
    expect(relativeError(plain, rounded)).toBeLessThan(0.02);
  });

  it('follow a weight that changes', async () => {
    const w = variable(rng.randn([256, 256]));
    const f = compile((x: Tensor) => linear(x, w), { freeze: true, weights: 'int8' });
    const x = rng.randn([1, 256]);
    const before = await f(x);
    w.set(
      ndarray(
        (w.value.data as Float32Array).map((v) => 2 * v),
        [256, 256],
      ),
    );
    const after = await f(x);
    (before.data as Float32Array).forEach((v, i) => {
      expect((after.data as Float32Array)[i]).toBeCloseTo(2 * v, 3);
    });
    await f.release();
  });

  it('are refused where weights change, and elsewhere than on the CPU', async () => {
    const w = variable(rng.randn([256, 256]));
    const f = (options: CompileOptions) => compile((x: Tensor) => linear(x, w), options)(rng.randn([1, 256]));
    await expect(f({ weights: 'int8' })).rejects.toThrow(/inference on the CPU.*weights that change/);
    await expect(f({ weights: 'int8', freeze: true, device: 'webgpu' })).rejects.toThrow(/not on webgpu/);
  });
});
