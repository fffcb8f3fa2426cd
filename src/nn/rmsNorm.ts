import { zeros } from '../array/index.js';
import type { Tensor, Variable } from '../tensor/index.js';
import { affine } from './layerNorm.js';
import { Module, ones, parameter } from './module.js';

/** x / sqrt(mean x² + eps) over the last `axes` axes (Zhang and Sennrich 2019). */
export const rmsNormalize = (x: Tensor, eps: number, axes = 1): Tensor =>
  x.mul(
    x
      .square()
      .mean(
        Array.from({ length: axes }, (_, i) => -1 - i),
        true,
      )
      .add(eps)
      .rsqrt(),
  );

/** Root-mean-square normalisation over the last axes, whose lengths are given; by default without a shift. */
export class RMSNorm extends Module {
  readonly weight?: Variable;
  readonly bias?: Variable;
  private readonly axes: number;

  constructor(
    shape: number | readonly number[],
    readonly options: { eps?: number; affine?: boolean; bias?: boolean } = {},
  ) {
    super();
    const lengths = typeof shape === 'number' ? [shape] : shape;
    this.axes = lengths.length;
    if (options.affine ?? true) {
      this.weight = parameter(ones(lengths));
      if (options.bias) this.bias = parameter(zeros(lengths));
    }
  }

  forward(x: Tensor): Tensor {
    return affine(rmsNormalize(x, this.options.eps ?? 1e-6, this.axes), this.weight, this.bias);
  }
}
