import { zeros } from '../array/index.js';
import { groupNorm, normalize, type Tensor, type Variable } from '../tensor/index.js';
import { affine, type NormOptions } from './layerNorm.js';
import { Module, ones, parameter } from './module.js';

/**
 * Normalises x [N, C, ...] over each of `groups` groups of channels and all positions (Wu and He 2018).
 * @throws RangeError when the groups do not divide the channels.
 */
export function groupNormalize(x: Tensor, groups: number, eps = 1e-5): Tensor {
  const [n, c] = x.shape;
  if (c % groups) throw new RangeError(`groupNormalize: ${groups} groups do not divide ${c} channels of [${x.shape}]`);
  return normalize(x.reshape([n, groups, x.size / (n * groups)]), 1, eps).reshape(x.shape);
}

/** A vector of channels [C], shaped so that it broadcasts over x [N, C, ...]. */
export const perChannel = (values: Tensor, x: Tensor): Tensor =>
  values.reshape([values.size, ...x.shape.slice(2).map(() => 1)]);

export class GroupNorm extends Module {
  readonly weight?: Variable;
  readonly bias?: Variable;

  /** @throws RangeError when the groups do not divide the channels. */
  constructor(
    readonly groups: number,
    readonly channels: number,
    readonly options: NormOptions = {},
  ) {
    super();
    if (channels % groups) throw new RangeError(`GroupNorm: ${groups} groups do not divide ${channels} channels`);
    if (options.affine ?? true) {
      this.weight = parameter(ones([channels]));
      if (options.bias ?? true) this.bias = parameter(zeros([channels]));
    }
  }

  forward(x: Tensor): Tensor {
    if (x.shape[1] !== this.channels)
      throw new RangeError(`GroupNorm: input [${x.shape}], expected ${this.channels} channels`);
    if (this.weight && this.bias) return groupNorm(x, this.groups, this.weight, this.bias, this.options.eps);
    const y = groupNormalize(x, this.groups, this.options.eps);
    return affine(y, this.weight && perChannel(this.weight, x));
  }
}
