import type { DType, NdArray, Shape } from '../../array/index.js';
import type { Generator } from '../../random/index.js';
import { leaf, type Op } from '../op.js';
import type { Tensor } from '../tensor.js';

const drawOp: Op = {
  name: 'draw',
  infer: () => {
    throw new Error('leaves have no inputs to infer from');
  },
  emit: () => [],
};

/** A value drawn anew on the host at each call, in the order the draws were written. */
export function draw(shape: Shape, dtype: DType, sample: () => NdArray): Tensor {
  return leaf(drawOp, { sample }, shape, dtype);
}

export const isDraw = (x: Tensor): boolean => x.op === drawOp;
/** What draws a value of it. */
export const samplerOf = (x: Tensor): (() => NdArray) => x.attrs.sample as () => NdArray;

/** Standard normal numbers from an explicit generator: the stream of torch.randn. */
export const randn = (shape: Shape, rng: Generator): Tensor => draw(shape, 'float32', () => rng.randn(shape));
/** Uniform numbers in [0, 1): the stream of torch.rand. */
export const rand = (shape: Shape, rng: Generator): Tensor => draw(shape, 'float32', () => rng.rand(shape));
/** Integers (int64) in [low, high): the stream of torch.randint. */
export const randint = (low: number, high: number, shape: Shape, rng: Generator): Tensor =>
  draw(shape, 'int64', () => rng.randint(low, high, shape));
