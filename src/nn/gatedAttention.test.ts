import { expect, test } from 'vitest';
import { Generator, normalWeights } from '../random/index.js';
import { compile, concat, constant, evaluate, type Tensor } from '../tensor/index.js';
import {
  FLASH,
  type FlashConfig,
  GAU,
  RelativePositionBias,
  RotaryEmbedding,
  relativePositionBucket,
} from './index.js';

const draw = (seed: number, shape: readonly number[]) => normalWeights(new Generator(seed), shape);
const largest = (x: { data: ArrayLike<unknown> }) => Math.max(...Array.from(x.data, (v) => Math.abs(Number(v))));

test('the bias of a query and a key is that of their distance', async () => {
  const bias = new RelativePositionBias({ scale: 3, numBuckets: 8, maxDistance: 20 }, new Generator(0));
  const table = bias.relativeAttentionBias.weight.value.data;
  const { data, shape } = await evaluate(bias.forward(9, 12));
  expect(shape).toEqual([9, 12]);
  for (let i = 0; i < 9; i++)
    for (let j = 0; j < 12; j++)
      expect(data[i * 12 + j]).toBeCloseTo(
        3 * Number(table[relativePositionBucket(j - i, { numBuckets: 8, maxDistance: 20 })]),
        5,
      );
});

test.each<[string, Partial<FlashConfig>]>([
  ['GAU', {}],
  ['FLASH', { groupSize: 4, rotary: 4, shiftTokens: true }],
  ['FLASH', { groupSize: 16, laplaceAttnFn: true }],
])('a causal %s answers alike whatever comes later', async (name, config) => {
  const options = { dim: 8, queryKeyDim: 6, causal: true, norm: 'scale_norm', ...config } as const;
  const module = name === 'GAU' ? new GAU(options, new Generator(0)) : new FLASH(options, new Generator(0));
  const run = compile((x: Tensor, later: Tensor) => {
    // GAU divides by the length, so both are as long.
    const other = concat([x.slice(1, 0, 6), later], 1);
    return module.forward(x).sub(module.forward(other)).slice(1, 0, 6);
  });
  expect(largest(await run(draw(1, [2, 11, 8]), draw(2, [2, 5, 8])))).toBeLessThan(1e-6);
  await run.release();
});

test('masked tokens change nothing for the others', async () => {
  const module = new FLASH({ dim: 8, queryKeyDim: 6, groupSize: 4 }, new Generator(0));
  const mask = constant([1, 1, 0, 1, 0, 1, 1], 'int64').cast('bool').unsqueeze(0);
  const run = compile((x: Tensor, y: Tensor) => {
    const kept = mask.cast('float32').unsqueeze(2);
    const other = x.mul(kept).add(y.mul(kept.neg().add(1)));
    return module.forward(x, { mask }).sub(module.forward(other, { mask })).mul(kept);
  });
  expect(largest(await run(draw(1, [1, 7, 8]), draw(2, [1, 7, 8])))).toBeLessThan(1e-6);
  await run.release();
});

test('rotary positions keep lengths and make products depend on distances alone', async () => {
  const rotary = new RotaryEmbedding(4);
  const rows = (seed: number) => constant(draw(seed, [1, 6])).expand([5, 6]);
  const [q, k] = [rotary.forward(rows(1)), rotary.forward(rows(2))];
  const products = (await evaluate(q.matmul(k.swapAxes(0, 1)))).data;
  for (const i of [0, 1, 2]) expect(products[(i + 1) * 5 + i + 2]).toBeCloseTo(Number(products[i * 5 + i + 1]), 4);
  expect(largest(await evaluate(q.square().sum(1).sub(rows(1).square().sum(1))))).toBeLessThan(1e-5);
  expect(() => new RotaryEmbedding(3)).toThrow('3 channels, expected an even number');
  expect(() => rotary.forward(constant(0).expand([5, 2]))).toThrow('4 channels to turn, the input has 2');
});
