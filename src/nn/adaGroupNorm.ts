import type { Generator } from '../random/index.js';
import { split, type Tensor } from '../tensor/index.js';
import { type ActivationName, activate } from './activations.js';
import { groupNormalize } from './groupNorm.js';
import { Linear } from './linear.js';
import { Module } from './module.js';

export interface AdaGroupNormConfig {
  readonly embeddingDim: number;
  readonly outDim: number;
  readonly numGroups: number;
  /** Of the embedding; default none. */
  readonly actFn?: ActivationName;
  /** Default 1e-5. */
  readonly eps?: number;
}

/** Group norm whose scale and shift come from an embedding (Dhariwal and Nichol 2021). */
export class AdaGroupNorm extends Module {
  readonly linear: Linear;

  constructor(
    readonly config: AdaGroupNormConfig,
    rng: Generator,
  ) {
    super();
    this.linear = new Linear(config.embeddingDim, 2 * config.outDim, rng);
  }

  /** @param x [N, outDim, H, W]. @param emb [N, embeddingDim]. */
  forward(x: Tensor, emb: Tensor): Tensor {
    const { actFn, numGroups, eps } = this.config;
    const [scale, shift] = split(this.linear.forward(actFn ? activate(actFn, emb) : emb), 2, 1);
    return modulateChannels(groupNormalize(x, numGroups, eps), shift, scale);
  }
}

/** x (1 + scale) + shift for x [N, C, H, W] and scale, shift [N, C]. */
export function modulateChannels(x: Tensor, shift: Tensor, scale: Tensor): Tensor {
  const perImage = (v: Tensor) => v.reshape([...v.shape, 1, 1]);
  return x.mul(perImage(scale.add(1))).add(perImage(shift));
}
