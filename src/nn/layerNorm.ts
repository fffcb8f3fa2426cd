import { zeros } from '../array/index.js';
import { normalize, type Tensor, type Variable } from '../tensor/index.js';
import { Module, ones, parameter } from './module.js';

export interface NormOptions {
  /** Added to the variance; default 1e-5. */
  readonly eps?: number;
  /** Learn a scale (and a shift) after normalising; default true. */
  readonly affine?: boolean;
  /** With `affine`, learn the shift, too; default true. */
  readonly bias?: boolean;
}

/** Layer normalisation (Ba et al. 2016) over the last axes, whose lengths are given. */
export class LayerNorm extends Module {
  readonly weight?: Variable;
  readonly bias?: Variable;
  private readonly shape: readonly number[];

  constructor(
    shape: number | readonly number[],
    readonly options: NormOptions = {},
  ) {
    super();
    this.shape = typeof shape === 'number' ? [shape] : shape;
    if (options.affine ?? true) {
      this.weight = parameter(ones(this.shape));
      if (options.bias ?? true) this.bias = parameter(zeros(this.shape));
    }
  }

  /** @throws RangeError when the input's last axes have other lengths. */
  forward(x: Tensor): Tensor {
    if (`${x.shape.slice(-this.shape.length)}` !== `${this.shape}`)
      throw new RangeError(`LayerNorm: input [${x.shape}] does not end with [${this.shape}]`);
    return affine(normalize(x, this.shape.length, this.options.eps), this.weight, this.bias);
  }
}

/** x * weight + bias, either of which may be absent. */
export function affine(x: Tensor, weight?: Tensor, bias?: Tensor): Tensor {
  const scaled = weight ? x.mul(weight) : x;
  return bias ? scaled.add(bias) : scaled;
}
