import type { Tensor } from '../tensor/index.js';
import { groupNormalize } from './groupNorm.js';
import { isTraining } from './module.js';
import { StatisticsNorm, type StatisticsOptions, unbiasedStatistics } from './statistics.js';

/**
 * Normalises each channel of each image by itself (Ulyanov et al. 2016), x [N, C, H, W]. By default it has neither
 * affine part nor running statistics; with the latter, evaluation uses the batch's average of each image's.
 */
export class InstanceNorm2d extends StatisticsNorm {
  private readonly momentum: number;

  constructor(channels: number, options: StatisticsOptions = {}) {
    super(channels, options);
    this.momentum = options.momentum === undefined ? 0.1 : (options.momentum ?? 0);
  }

  /** @throws RangeError for other channels. */
  forward(x: Tensor): Tensor {
    this.check(x, 3);
    if (this.runningMean && !isTraining()) return this.byRunningStatistics(x);
    if (this.runningMean) {
      const { mean, variance } = unbiasedStatistics(
        x,
        x.shape.map((_, i) => i).filter((i) => i > 1),
      );
      this.track(mean.mean(0), variance.mean(0), this.momentum);
    }
    return this.scaled(groupNormalize(x, this.channels, this.eps));
  }
}
