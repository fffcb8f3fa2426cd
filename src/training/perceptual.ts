import type { Tensor } from '../tensor/index.js';

/** A fixed network's activations at several depths, [N, C, h, w] each, of images [N, C, H, W] in [-1, 1]. */
export type Activations = (images: Tensor) => readonly Tensor[];

/** Each position's activations to length 1; where there are none they stay so. */
const normalised = (x: Tensor): Tensor => x.div(x.square().sum(1, true).add(1e-10).sqrt());

/**
 * How different images look to a network (LPIPS, Zhang et al. 2018, with every channel counting the same): activations
 * of unit length, their squared distances averaged over positions and images and added up over depths.
 * @returns a scalar from 0.
 */
export const perceptualDistance = (a: Tensor, b: Tensor, activations: Activations): Tensor => {
  const theirs = activations(b);
  return activations(a)
    .map((x, i) => normalised(x).sub(normalised(theirs[i])).square().sum(1).mean())
    .reduce((sum, distance) => sum.add(distance));
};
