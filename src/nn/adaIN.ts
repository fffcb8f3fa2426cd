import type { Tensor } from '../tensor/index.js';
import { unbiasedStatistics } from './statistics.js';

/** Mean and standard deviation of each channel of x [N, C, H, W], [N, C, 1, 1]: unbiased variance, eps under the root. */
export function channelStatistics(x: Tensor, eps = 1e-5): { mean: Tensor; std: Tensor } {
  const { mean, variance } = unbiasedStatistics(x, [2, 3], true);
  return { mean, std: variance.add(eps).sqrt() };
}

/**
 * Adaptive instance normalisation (Huang and Belongie 2017): gives the content [N, C, H, W] the channel statistics
 * of the style [N, C, h, w].
 */
export function adaIN(content: Tensor, style: Tensor, eps = 1e-5): Tensor {
  const [from, to] = [channelStatistics(content, eps), channelStatistics(style, eps)];
  return content.sub(from.mean).mul(to.std.div(from.std)).add(to.mean);
}
