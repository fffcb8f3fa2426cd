import type { Tensor } from '../tensor/index.js';
import { perChannel } from './groupNorm.js';
import { isTraining } from './module.js';
import { StatisticsNorm, type StatisticsOptions } from './statistics.js';

/**
 * Batch normalisation (Ioffe and Szegedy 2015) of x [N, C, ...]: torch.nn.BatchNorm1d, 2d and 3d.
 * In training it normalises by the batch (biased variance) and moves the running statistics (unbiased variance);
 * in evaluation it normalises by those. Call it once per training step, as only its last call moves them.
 */
export class BatchNorm extends StatisticsNorm {
  private readonly momentum: number | null;

  /** @param options `momentum: null` averages over all batches ever seen. `affine` and `trackRunningStats` default to true. */
  constructor(channels: number, options: StatisticsOptions = {}) {
    const { affine = true, trackRunningStats = true } = options;
    super(channels, { ...options, affine, trackRunningStats });
    this.momentum = options.momentum === undefined ? 0.1 : options.momentum;
  }

  /** @throws RangeError for other channels, or when a training batch has one value per channel. */
  forward(x: Tensor): Tensor {
    this.check(x, 2);
    if (!isTraining() && this.runningMean) return this.byRunningStatistics(x);
    const axes = x.shape.map((_, i) => i).filter((i) => i !== 1);
    const count = x.size / this.channels;
    if (isTraining() && count < 2)
      throw new RangeError(`BatchNorm: training needs more than one value per channel, got [${x.shape}]`);
    const mean = x.mean(axes);
    const centred = x.sub(perChannel(mean, x));
    const variance = centred.square().mean(axes);
    if (isTraining() && this.numBatchesTracked) {
      const seen = this.numBatchesTracked.add(1);
      this.numBatchesTracked.assign(seen);
      this.track(mean, variance.mul(count / (count - 1)), this.momentum ?? seen.cast('float32').reciprocal());
    }
    const inverse = variance.add(this.eps).rsqrt();
    const scaled = centred.mul(perChannel(this.weight ? inverse.mul(this.weight) : inverse, x));
    return this.bias ? scaled.add(perChannel(this.bias, x)) : scaled;
  }
}
