import { ndarray } from '../array/index.js';
import { constant, conv2d, convTranspose2d, type Tensor } from '../tensor/index.js';

/** Outer product of [1, 3, 3, 1] / 8 with itself. */
const weights = [1, 3, 3, 1].flatMap((a) => [1, 3, 3, 1].map((b) => (a * b) / 64));
const kernel = constant(ndarray(weights, [1, 1, 4, 4]));

/** Runs a filter on each channel by itself. */
const perChannel = (x: Tensor, filter: (planes: Tensor) => Tensor): Tensor => {
  const [n, c, height, width] = x.shape;
  const y = filter(x.reshape([n * c, 1, height, width]));
  return y.reshape([n, c, y.shape[2], y.shape[3]]);
};

/** Halves images [N, C, H, W] by a smoothing filter (StyleGAN2's, Karras et al. 2020); zeros lie outside. */
export const firDownsample2d = (x: Tensor): Tensor =>
  perChannel(x, (planes) => conv2d(planes, kernel, undefined, { stride: 2, padding: 1 }));

/** Doubles images [N, C, H, W] by the same filter. */
export const firUpsample2d = (x: Tensor): Tensor =>
  perChannel(x, (planes) => convTranspose2d(planes, kernel.mul(4), { stride: 2, padding: 1 }));
