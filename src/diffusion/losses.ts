import type { Tensor } from '../tensor/index.js';

/** Squared error of each sample, averaged over all else: [N, ...] -> [N]. */
export const squaredError = (prediction: Tensor, target: Tensor): Tensor => {
  const rest = prediction.shape.map((_, axis) => axis).slice(1);
  return prediction.sub(target).square().mean(rest);
};

/** Mean squared error, scalar; `weights` [N] count samples differently (min-SNR, SD3's densities). */
export function denoisingLoss(prediction: Tensor, target: Tensor, weights?: Tensor): Tensor {
  const errors = squaredError(prediction, target);
  return (weights ? errors.mul(weights) : errors).mean();
}
