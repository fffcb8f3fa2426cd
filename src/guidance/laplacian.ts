import type { Tensor } from '../tensor/index.js';
import { after, blurred, interpolated, separable } from './separable.js';

const binomial = [1, 4, 6, 4, 1].map((weight) => weight / 16);

/** Blurs and halves images [N, C, H, W] (odd sizes round up), as kornia's pyrdown. */
export function pyramidDown(x: Tensor): Tensor {
  const [h, w] = x.shape.slice(2).map((n) => after(interpolated(n, Math.ceil(n / 2)), blurred(n, binomial)));
  return separable(x, h, w);
}

/** Enlarges images and blurs them, as kornia's pyrup; default: to twice the size. */
export function pyramidUp(x: Tensor, size: readonly number[] = x.shape.slice(2).map((n) => 2 * n)): Tensor {
  const [h, w] = size.map((n, i) => after(blurred(n, binomial), interpolated(x.shape[2 + i], n)));
  return separable(x, h, w);
}

/**
 * The Laplacian pyramid of images [N, C, H, W]: what each halving loses, finest first, and what is left. Any size will
 * do: unlike kornia's, odd sizes are not padded to a power of two.
 */
export function laplacianPyramid(x: Tensor, levels: number): Tensor[] {
  if (levels <= 1) return [x];
  const half = pyramidDown(x);
  return [x.sub(pyramidUp(half, x.shape.slice(2))), ...laplacianPyramid(half, levels - 1)];
}

/** The images of which {@link laplacianPyramid} made these levels. */
export const fromLaplacianPyramid = (levels: readonly Tensor[]): Tensor =>
  levels.reduceRight((image, level) => pyramidUp(image, level.shape.slice(2)).add(level));
