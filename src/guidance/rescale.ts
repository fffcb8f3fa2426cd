import { type Tensor, variance } from '../tensor/index.js';

/**
 * Guidance rescale (Lin et al. 2023, section 3.4): gives the guided prediction the conditional one's standard
 * deviation per sample (unbiased, over all but the batch), mixed in by `share` [1].
 */
export function rescaleGuidance(guided: Tensor, conditional: Tensor, share: Tensor): Tensor {
  const rest = guided.shape.map((_, axis) => axis).slice(1);
  const std = (x: Tensor) => variance(x, rest, true, true).sqrt();
  // A prediction that guidance made constant (CFG-Zero* begins with zeros) has no deviation to divide by.
  const rescaled = guided.mul(std(conditional).div(std(guided).maximum(1e-12)));
  return guided.add(share.mul(rescaled.sub(guided)));
}
