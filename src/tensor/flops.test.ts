import { expect, test } from 'vitest';
import { zeros } from '../array/index.js';
import {
  computedNumbers,
  conv2d,
  convTranspose2d,
  flops,
  gradients,
  linear,
  matmul,
  resizeNearest,
  variable,
} from './index.js';

const leaf = (...shape: number[]) => variable(zeros(shape));

test('a matrix product is 2 M N K, however it is transposed and batched', () => {
  expect(flops([leaf(5, 3).matmul(leaf(3, 7))])).toBe(2 * 5 * 3 * 7);
  expect(flops([matmul(leaf(4, 3, 5), leaf(4, 7, 3), { transA: true, transB: true })])).toBe(4 * 2 * 5 * 3 * 7);
  expect(flops([linear(leaf(2, 5, 3), leaf(7, 3), leaf(7))])).toBe(2 * 2 * 5 * 3 * 7);
});

test('a convolution costs its kernel at every output', () => {
  const [x, w] = [leaf(2, 4, 8, 8), leaf(6, 2, 3, 3)];
  expect(flops([conv2d(x, w, undefined, { groups: 2, stride: 2, padding: 1 })])).toBe(2 * (2 * 6 * 4 * 4) * (2 * 9));
  const doubled = resizeNearest(leaf(2, 4, 4, 4), [8, 8]);
  expect(flops([conv2d(doubled, leaf(6, 4, 3, 3), undefined, { padding: 1 })])).toBe(2 * (2 * 6 * 8 * 8) * (4 * 4));
  expect(flops([convTranspose2d(leaf(2, 4, 8, 8), leaf(4, 6, 3, 3), { stride: 2 })])).toBe(2 * (2 * 4 * 64) * (6 * 9));
});

test('shared nodes count once, and a step is three times its forward pass', () => {
  const [x, w1, w2] = [leaf(5, 3), leaf(7, 3), leaf(7, 7)];
  const y = linear(linear(x, w1), w2);
  expect(flops([y, y.add(1)])).toBe(flops([y]));
  expect(flops(gradients(y.square().sum(), [x, w1, w2]))).toBe(3 * flops([y]));
});

test('what a graph computes is counted without what it reads', () => {
  const [x, w] = [leaf(5, 3), leaf(7, 3)];
  const y = linear(x, w);
  expect(computedNumbers(y)).toBe(5 * 7);
  expect(computedNumbers(y.add(y.mul(2)).sum())).toBe(3 * 5 * 7 + 1);
});
