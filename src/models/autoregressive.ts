import type { Module } from '../nn/index.js';
import { softplus, type Tensor } from '../tensor/index.js';

/**
 * A model of binary variables that predicts each from those before it: p(x) = Π p(x_i | x_<i). One pass gives all
 * conditionals, so the likelihood is exact; samples are drawn one variable at a time.
 */
export interface AutoregressiveModel extends Module {
  /** [channels, height, width] of an image; their product is the number of variables. */
  readonly shape: readonly [number, number, number];
  /** The variables' positions (row by row), in the order in which each is predicted from those before. */
  readonly order: Int32Array;
  /** @param x [N, ...shape] of 0 and 1. @returns logits of p(x_i = 1 | those before it), as x. */
  forward(x: Tensor): Tensor;
}

/** log p(x) in nats, [N], from a model's logits [N, ...]: the sum over all variables of x log p + (1 - x) log (1 - p). */
export const bernoulliLogLikelihood = (logits: Tensor, x: Tensor): Tensor =>
  x
    .mul(logits)
    .sub(softplus(logits))
    .sum(x.shape.map((_, i) => i).slice(1));

/** @throws RangeError when the images are of another shape. */
export function checkImages(name: string, shape: readonly number[], x: Tensor): void {
  if (`${x.shape.slice(1)}` !== `${shape}`)
    throw new RangeError(`${name}: images [${x.shape}], expected [N, ${shape.join(', ')}]`);
}

export const rasterOrder = ([c, h, w]: readonly [number, number, number]): Int32Array =>
  Int32Array.from({ length: c * h * w }, (_, i) => i);
