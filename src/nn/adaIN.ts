import type { Tensor } from '../tensor/index.js';
import { unbiasedStatistics } from './statistics.js';

/** Of each channel, [N, C, 1, 1]. */
export interface ChannelStatistics {
  readonly mean: Tensor;
  readonly std: Tensor;
}

/** Mean and standard deviation of each channel of x [N, C, H, W], [N, C, 1, 1]: unbiased variance, eps under the root. */
export function channelStatistics(x: Tensor, eps = 1e-5): ChannelStatistics {
  const { mean, variance } = unbiasedStatistics(x, [2, 3], true);
  return { mean, std: variance.add(eps).sqrt() };
}

/** Gives x [N, C, H, W] other channel statistics instead of its own. */
export function withChannelStatistics(x: Tensor, to: ChannelStatistics, eps = 1e-5): Tensor {
  const from = channelStatistics(x, eps);
  return x.sub(from.mean).mul(to.std.div(from.std)).add(to.mean);
}

/**
 * Adaptive instance normalisation (Huang and Belongie 2017): gives the content [N, C, H, W] the channel statistics
 * of the style [N, C, h, w].
 */
export const adaIN = (content: Tensor, style: Tensor, eps = 1e-5): Tensor =>
  withChannelStatistics(content, channelStatistics(style, eps), eps);
