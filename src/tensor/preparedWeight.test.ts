import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type NdArray, type StoredArray, toFloat32, toHalf } from '../array/index.js';
import { openSafetensors, writeSafetensors } from '../io/node/index.js';
import { Generator } from '../random/index.js';
import { convBlock } from '../runtime/index.js';
import { blockedWeight } from './blockedWeight.js';
import { compile, conv2d, evaluate, groupNorm, silu, type Tensor, variable } from './index.js';
import { blockedKernel } from './ops/blockedConv.js';

const rng = new Generator(0);
const farthest = (a: NdArray, b: NdArray): number => {
  const [x, y] = [a.data as Float32Array, b.data as Float32Array];
  expect(x.length).toBe(y.length);
  return x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i])), 0);
};

it.each([
  [[32, 48, 3, 3], 16],
  [[32, 4, 3, 3], 16],
  [[16, 8, 1, 2], 8],
  // More than a band of a mebibyte, the last of which is smaller.
  [[48, 2048, 3, 3], 16],
] as const)('a kernel %j is laid out in blocks of %i', async (shape, block) => {
  const w = variable(rng.randn(shape));
  const [o, c, kh, kw] = shape;
  const inputs = c < block ? 1 : block;
  const blocks = w.reshape([o / block, block, c / inputs, inputs, kh * kw]).transpose([0, 2, 4, 3, 1]);
  const host = blockedWeight(w, block).value;
  expect(farthest(host, await evaluate(blocks))).toBe(0);
  // In the graph the engine's own reordering has a part in it.
  if (block === (await convBlock())) expect(farthest(host, await evaluate(blockedKernel(w, block)))).toBe(0);
});

it('a kernel in a file is read in bands, and stays there', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const inMemory = rng.randn([48, 2048, 3, 3]);
  for (const dtype of ['float32', 'float16'] as const) {
    const file = join(folder, `${dtype}.safetensors`);
    await writeSafetensors(file, new Map([['w', dtype === 'float16' ? toHalf(inMemory, dtype) : inMemory]]));
    const w = variable(((await openSafetensors(file)).tensors.get('w') as StoredArray).asFloat32());
    const prepared = blockedWeight(w, 16).value;
    expect(w.value).toHaveProperty('stored.path');
    const widened = dtype === 'float16' ? toFloat32(toHalf(inMemory, dtype)) : inMemory;
    expect(farthest(prepared, blockedWeight(variable(widened), 16).value)).toBe(0);
  }
  await rm(folder, { recursive: true });
});

it('a form is made once, and anew when its weight changes', async () => {
  const w = variable(rng.randn([16, 16, 3, 3]));
  const first = blockedWeight(w, 16);
  expect(blockedWeight(w, 16)).toBe(first);
  expect(blockedWeight(w, 8)).not.toBe(first);
  const run = compile((x: Tensor) => conv2d(x, w, undefined, { padding: 1 }), { freeze: true });
  const x = rng.randn([1, 16, 8, 8]);
  const before = await run(x);
  w.set(rng.randn([16, 16, 3, 3]));
  expect(blockedWeight(w, 16)).not.toBe(first);
  expect(farthest(await run(x), before)).toBeGreaterThan(1);
  await run.release();
});

it('an image stays in blocks through convolutions, and large norms among them', async () => {
  expect([8, 16, undefined]).toContain(await convBlock());
  const [w, v] = [1, 2].map(() => variable(rng.randn([32, 32, 3, 3])));
  const [scale, shift] = [1, 2].map(() => variable(rng.randn([32])));
  const f = (x: Tensor) => {
    const y = conv2d(x, w, undefined, { padding: 1 }).add(300);
    return conv2d(silu(groupNorm(y, 4, scale, shift)), v, undefined, { padding: 1 });
  };
  const [plain, frozen] = [false, true].map((freeze) => compile(f, { freeze }));
  for (const size of [16, 128]) {
    const x = rng.randn([2, 32, size, size]);
    // Sums of 288 products of deviation about 1, of what was 300 before it was centred: 17 * 300 * 2^-23 * 10.
    expect(farthest(await plain(x), await frozen(x))).toBeLessThan(6e-3);
  }
  await plain.release();
  await frozen.release();
});
