import { ndarray, zeros } from '../array/index.js';
import { type Tensor, type Variable, variance } from '../tensor/index.js';
import { perChannel } from './groupNorm.js';
import { affine } from './layerNorm.js';
import { buffer, Module, ones, parameter } from './module.js';

export interface StatisticsOptions {
  /** Added to the variance; default 1e-5. */
  readonly eps?: number;
  /** Weight of a new batch in the running statistics; default 0.1. */
  readonly momentum?: number | null;
  /** Learn a scale and a shift. */
  readonly affine?: boolean;
  /** Keep running statistics, and use them in evaluation. */
  readonly trackRunningStats?: boolean;
}

/** What batch and instance norm share: the affine part and the running statistics of x [N, C, ...], each [C]. */
export abstract class StatisticsNorm extends Module {
  readonly weight?: Variable;
  readonly bias?: Variable;
  readonly runningMean?: Variable;
  readonly runningVar?: Variable;
  /** int64 [] */
  readonly numBatchesTracked?: Variable;
  protected readonly eps: number;

  constructor(
    readonly channels: number,
    { eps = 1e-5, affine, trackRunningStats }: StatisticsOptions,
  ) {
    super();
    this.eps = eps;
    if (affine) {
      this.weight = parameter(ones([channels]));
      this.bias = parameter(zeros([channels]));
    }
    if (trackRunningStats) {
      this.runningMean = buffer(zeros([channels]));
      this.runningVar = buffer(ones([channels]));
      this.numBatchesTracked = buffer(ndarray([0], [], 'int64'));
    }
  }

  protected check(x: Tensor, leastRank: number): void {
    if (x.rank < leastRank || x.shape[1] !== this.channels)
      throw new RangeError(
        `${this.constructor.name}: input [${x.shape}], expected ${this.channels} channels and at least ${leastRank} axes`,
      );
  }

  protected scaled(x: Tensor): Tensor {
    return affine(x, this.weight && perChannel(this.weight, x), this.bias && perChannel(this.bias, x));
  }

  /** Normalises by the running statistics, as one scale and one shift per channel. */
  protected byRunningStatistics(x: Tensor): Tensor {
    const inverse = this.runningVar!.add(this.eps).rsqrt();
    const scale = this.weight ? inverse.mul(this.weight) : inverse;
    const shift = this.runningMean!.mul(scale).neg();
    return affine(x, perChannel(scale, x), perChannel(this.bias ? shift.add(this.bias) : shift, x));
  }

  /** After the call: running = (1 - momentum) running + momentum batch. @param mean,unbiased [C] */
  protected track(mean: Tensor, unbiased: Tensor, momentum: Tensor | number): void {
    for (const [running, batch] of [
      [this.runningMean!, mean],
      [this.runningVar!, unbiased],
    ] as const)
      running.assign(running.add(batch.sub(running).mul(momentum)));
  }
}

/** Mean and unbiased variance over the given axes. */
export function unbiasedStatistics(
  x: Tensor,
  axes: readonly number[],
  keepDims = false,
): { mean: Tensor; variance: Tensor } {
  return { mean: x.mean(axes, keepDims), variance: variance(x, axes, keepDims, true) };
}
