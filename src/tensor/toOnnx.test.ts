import * as ort from 'onnxruntime-node';
import { expect, test } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import {
  compile,
  constant,
  gelu,
  linear,
  matmul,
  scaledDotProductAttention,
  silu,
  type Tensor,
  toOnnx,
  variable,
} from './index.js';

const rng = new Generator(0);

async function run(file: Uint8Array, feeds: Record<string, NdArray>): Promise<Record<string, ort.Tensor>> {
  const session = await ort.InferenceSession.create(file);
  const fed = Object.entries(feeds).map(
    ([name, { dtype, data, shape }]) =>
      [name, new ort.Tensor(dtype as 'float32', data as Float32Array, shape)] as const,
  );
  const results = await session.run(Object.fromEntries(fed));
  await session.release();
  return results as Record<string, ort.Tensor>;
}

test('one file for any batch, in standard operators', async () => {
  const [weight, table] = [variable(rng.randn([12, 6])), constant(rng.randn([5, 6]))];
  const attend = (x: Tensor) => {
    const heads = linear(x.add(table), weight).reshape([x.shape[0], 5, 2, 6]).transpose([0, 2, 1, 3]);
    const attended = scaledDotProductAttention(heads, silu(heads), gelu(heads, 'tanh'));
    return { out: matmul(heads, attended, { transA: true, alpha: 0.5 }) };
  };
  const inputs = { x: { shape: ['batch', 5, 6], dtype: 'float32' } } as const;
  const file = toOnnx(({ x }) => attend(x), inputs, new Map([['proj.weight', weight]]));
  const text = Buffer.from(file).toString('latin1');
  expect(text).not.toContain('com.microsoft');
  expect(text).toContain('proj.weight');
  const own = compile(attend);
  for (const n of [1, 3]) {
    const x = rng.randn([n, 5, 6]);
    const { out } = await run(file, { x });
    const expected = (await own(x)).out.data as Float32Array;
    expect(out.dims).toEqual([n, 2, 6, 6]);
    for (const [i, value] of (out.data as Float32Array).entries()) expect(value).toBeCloseTo(expected[i], 4);
  }
  await own.release();
});

test('a fixed size, and one that cannot be left open', async () => {
  const w = variable(ndarray(new Float32Array([1, 2]), [1, 2]));
  const x = { shape: [2, 2], dtype: 'float32' } as const;
  const { y } = await run(
    toOnnx(({ x }) => ({ y: gelu(linear(x, w), 'tanh') }), { x }),
    {
      x: ndarray(new Float32Array([1, 1, 0, -1]), [2, 2]),
    },
  );
  expect([...(y.data as Float32Array)].map((v) => v.toFixed(3))).toEqual(['2.996', '-0.045']);
  const anyBatch = { x: { shape: ['batch', 2], dtype: 'float32' } } as const;
  expect(() => toOnnx(({ x }) => ({ y: x.add(constant(1).expand(x.shape)) }), anyBatch)).toThrow(
    'Expand depends on the batch size',
  );
});
