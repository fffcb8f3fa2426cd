import { expect, test } from 'vitest';
import { Generator, normalWeights } from '../random/index.js';
import { compile, constant, gradients, type Tensor } from '../tensor/index.js';
import { eluPlusOne, LinearAttention, linearAttention } from './index.js';

const draw = (seed: number, shape: readonly number[]) => normalWeights(new Generator(seed), shape);
const far = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - (b as Float32Array)[i])));

/** The sums written out as a masked product of all queries with all keys. */
function quadratic(q: Tensor, k: Tensor, v: Tensor): Tensor {
  const [phiQ, phiK, values] = [eluPlusOne(q), eluPlusOne(k), v].map((x) => x.transpose([0, 2, 1, 3]));
  const length = q.shape[1];
  const mask = Array.from({ length: length * length }, (_, i) => Number(i % length <= Math.floor(i / length)));
  const scores = phiQ.matmul(phiK.swapAxes(2, 3)).mul(constant(mask).reshape([length, length]));
  return scores.matmul(values).div(scores.sum(3, true).add(1e-6)).transpose([0, 2, 1, 3]);
}

test('the causal form is the same by chunks of any size, and so are its gradients', async () => {
  const arrays = [draw(0, [2, 13, 2, 4]), draw(1, [2, 13, 2, 4]), draw(2, [2, 13, 2, 3])] as const;
  const weight = draw(3, [2, 13, 2, 3]);
  const results = (y: Tensor, inputs: readonly Tensor[]) => [y, ...gradients(y.mul(constant(weight)).sum(), inputs)];
  const run = compile((q: Tensor, k: Tensor, v: Tensor) => ({
    expected: results(quadratic(q, k, v), [q, k, v]),
    chunked: [1, 4, 5, 13, 64].map((chunk) => results(linearAttention(q, k, v, { causal: true, chunk }), [q, k, v])),
  }));
  const { expected, chunked } = await run(...arrays);
  for (const result of chunked)
    for (const [i, x] of result.entries())
      expect(far(x.data as Float32Array, expected[i].data as Float32Array)).toBeLessThan(2e-5);
  await run.release();
});

test('queries whose keys do not fit, and heads that do not divide the width, are refused', () => {
  const zeros = (shape: readonly number[]) => constant(0).expand(shape);
  expect(() =>
    linearAttention(zeros([1, 4, 2, 3]), zeros([1, 5, 2, 3]), zeros([1, 5, 2, 3]), { causal: true }),
  ).toThrow('linearAttention: queries [1,4,2,3] do not fit keys [1,5,2,3]');
  expect(() => new LinearAttention({ dim: 10, heads: 3 }, new Generator(0))).toThrow(
    '3 heads do not divide a width of 10',
  );
});
