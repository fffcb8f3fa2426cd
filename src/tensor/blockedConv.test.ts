import { expect, it } from 'vitest';
import { Generator } from '../random/index.js';
import { convBlock } from '../runtime/index.js';
import { type ConvOptions, compile, conv2d, gradients, sumOverParts, type Tensor, toOnnx, variable } from './index.js';

const rng = new Generator(0);

it.each<[string, number[], number[], ConvOptions]>([
  ['a block of the batch', [16, 32, 7, 7], [16, 32, 3, 3], { padding: 1 }],
  ['a small batch', [2, 16, 9, 8], [32, 16, 3, 3], { padding: 1 }],
  ['a batch that shares no factor', [3, 16, 16, 5], [16, 16, 3, 3], { padding: 1 }],
  ['more than a cache holds', [16, 16, 40, 40], [16, 16, 3, 3], { padding: 1 }],
  ['stride 2', [8, 16, 14, 14], [32, 16, 3, 3], { padding: 1, stride: 2 }],
  ['stride 2 with a rest', [4, 16, 10, 9], [16, 16, 2, 2], { stride: 2 }],
  [
    'asymmetric padding and dilation',
    [8, 16, 12, 12],
    [16, 16, 3, 3],
    { padding: [[0, 2], [1, 0]], dilation: [1, 2] }, // biome-ignore format: reads better in one line
  ],
  ['a kernel of one pixel', [2, 16, 4, 4], [32, 16, 1, 1], {}],
  ['groups', [2, 32, 6, 6], [32, 16, 3, 3], { groups: 2, padding: 1 }],
  ['few channels', [2, 3, 6, 6], [16, 3, 3, 3], { padding: 1 }],
])('blocked convolutions give what plain ones do: %s', async (_, xShape, wShape, options) => {
  const inputs = [rng.randn(xShape), rng.randn(wShape), rng.randn([wShape[0]])];
  const f = (...xs: Tensor[]) => {
    const y = conv2d(xs[0], xs[1], xs[2], options);
    return [y, ...gradients(y.tanh().sum(), xs)];
  };
  const [blocked, plain] = [compile(f), compile(f, { freeze: true })];
  const [results, expected] = [await blocked(...inputs), await plain(...inputs)];
  for (const [i, { shape, data }] of expected.entries()) {
    const largest = (values: Float32Array) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const difference = (data as Float32Array).map((value, k) => value - (results[i].data[k] as number));
    expect(results[i].shape).toEqual(shape);
    expect(largest(difference) / largest(data as Float32Array), `result ${i}`).toBeLessThan(1e-5);
  }
  await Promise.all([blocked.release(), plain.release()]);
});

it('finds the size of a block', async () => {
  expect([8, 16]).toContain(await convBlock());
});

it('keeps files that others read plain', () => {
  const w = variable(rng.randn([16, 16, 3, 3]));
  const x = { shape: [1, 16, 4, 4], dtype: 'float32' } as const;
  expect(Buffer.from(toOnnx(({ x }) => ({ y: conv2d(x, w) }), { x })).toString('latin1')).not.toContain('nchwc');
});

it('re-lays out a weight once for all parts of a batch', async () => {
  const w = variable(rng.randn([16, 16, 3, 3]));
  const x = rng.randn([8, 16, 6, 6]);
  const loss = (x: Tensor) => conv2d(x, w, undefined, { padding: 1 }).square().sum();
  const whole = compile((x: Tensor) => [loss(x), ...gradients(loss(x), [w])], { freeze: true });
  const parts = compile((x: Tensor) => sumOverParts(2, [x], ([x]) => [loss(x), ...gradients(loss(x), [w])]));
  const [[a, b], [c, d]] = [await whole(x), await parts(x)];
  expect((c.data[0] as number) / (a.data[0] as number)).toBeCloseTo(1, 5);
  for (const [i, value] of (b.data as Float32Array).entries()) expect(d.data[i]).toBeCloseTo(value, 1);
});
