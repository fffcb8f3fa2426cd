import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type NdArray, type StoredArray, toFloat32, toHalf } from '../array/index.js';
import { openSafetensors, writeSafetensors } from '../io/node/index.js';
import { Generator } from '../random/index.js';
import { compile, linear, type Tensor, variable } from './index.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'stored-'));
});
afterAll(() => rm(folder, { recursive: true }));

const rng = new Generator(0);
const whole = rng.randn([32, 24]);

async function opened(name: string, dtype: 'float32' | 'float16' | 'bfloat16'): Promise<StoredArray<'float32'>> {
  const path = join(folder, name);
  await writeSafetensors(path, { w: dtype === 'float32' ? whole : toHalf(whole, dtype), odd: rng.randn([3]) });
  return ((await openSafetensors(path)).tensors.get('w') as StoredArray).asFloat32();
}

const product = (w: NdArray) => {
  const v = variable(w);
  return [v, compile((x: Tensor) => x.matmul(v), { freeze: true })] as const;
};

describe('weights that stay in their file', () => {
  it.each(['float32', 'float16', 'bfloat16'] as const)('give the same products, from %s', async (dtype) => {
    const stored = await opened(`${dtype}.safetensors`, dtype);
    const x = rng.randn([4, 32]);
    const there = (await product(stored)[1](x)).data;
    expect(stored.stored).toBeDefined();
    const rounded = dtype === 'float32' ? whole : toFloat32(toHalf(whole, dtype));
    expect([...there]).toEqual([...(await product(rounded)[1](x)).data]);
    expect([...stored.data]).toEqual([...rounded.data]);
    expect(stored.stored).toBeUndefined();
  });

  it('are taken from memory once they were changed there', async () => {
    const [v, f] = product(await opened('changed.safetensors', 'float32'));
    const x = rng.randn([4, 32]);
    const before = await f(x);
    (v.value.data as Float32Array).fill(0);
    v.changed();
    expect(Math.max(...(before.data as Float32Array).map(Math.abs))).toBeGreaterThan(1);
    expect(Math.max(...((await f(x)).data as Float32Array).map(Math.abs))).toBe(0);
  });

  it('come from several files into one session', async () => {
    const [a, b] = [await opened('a.safetensors', 'float32'), await opened('b.safetensors', 'float16')];
    const [va, vb] = [variable(a), variable(b)];
    const f = compile((x: Tensor) => x.matmul(va.add(vb)), { freeze: true });
    expect((await f(rng.randn([1, 32]))).shape).toEqual([1, 24]);
  });

  it('stand beside large weights in memory', async () => {
    const stored = variable(await opened('beside.safetensors', 'float32'));
    const other = variable(rng.randn([24, 400]));
    const f = compile((x: Tensor) => x.matmul(stored).matmul(other), { freeze: true });
    expect((await f(rng.randn([1, 32]))).shape).toEqual([1, 400]);
  });

  it('are refused when the file has changed since', async () => {
    const stored = await opened('late.safetensors', 'float32');
    await utimes(join(folder, 'late.safetensors'), new Date(0), new Date(0));
    await expect(product(stored)[1](rng.randn([4, 32]))).rejects.toThrow('the file has changed since it was opened');
    await writeFile(join(folder, 'late.safetensors'), '');
    expect(() => stored.data).toThrow('late.safetensors');
  });
});

it.each(['float32', 'float16'] as const)('weights of 8 bits are made from %s without keeping it', async (dtype) => {
  const path = join(folder, `eight-${dtype}.safetensors`);
  const whole = rng.randn([256, 300]);
  await writeSafetensors(path, { w: dtype === 'float32' ? whole : toHalf(whole, dtype) });
  const stored = ((await openSafetensors(path)).tensors.get('w') as StoredArray).asFloat32();
  const x = rng.randn([2, 300]);
  const [v, u] = [variable(stored), variable(whole)];
  const fromFile = compile((y: Tensor) => linear(y, v), { freeze: true, weights: 'int8' });
  const fromMemory = compile((y: Tensor) => linear(y, u), { freeze: true, weights: 'int8' });
  const [a, b] = [(await fromFile(x)).data as Float32Array, (await fromMemory(x)).data as Float32Array];
  for (const [i, value] of a.entries()) expect(Math.abs(value - b[i])).toBeLessThan(0.5);
  expect(stored.stored).toBeDefined();
  expect(toFloat32(stored).data[0]).toBeCloseTo(whole.data[0], 2);
});
