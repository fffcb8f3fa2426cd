import type { Generator } from '../random/index.js';
import { split, type Tensor } from '../tensor/index.js';
import { activate } from './activations.js';
import { modulate } from './adaLayerNormZero.js';
import { LayerNorm } from './layerNorm.js';
import { Linear } from './linear.js';
import { Module } from './module.js';
import { RMSNorm } from './rmsNorm.js';

export interface AdaLayerNormContinuousConfig {
  readonly embeddingDim: number;
  readonly conditioningEmbeddingDim: number;
  /** Default true. */
  readonly elementwiseAffine?: boolean;
  /** Default 1e-5. */
  readonly eps?: number;
  /** Of the projection and of the layer norm; default true. */
  readonly bias?: boolean;
  readonly normType?: 'layer_norm' | 'rms_norm';
}

/** A norm whose scale and shift come from a vector: norm(x) (1 + scale) + shift. */
export class AdaLayerNormContinuous extends Module {
  readonly linear: Linear;
  readonly norm: LayerNorm | RMSNorm;

  /** @throws RangeError for an unknown norm. */
  constructor(config: AdaLayerNormContinuousConfig, rng: Generator) {
    super();
    const { embeddingDim, eps = 1e-5, elementwiseAffine: affine = true, bias = true, normType = 'layer_norm' } = config;
    this.linear = new Linear(config.conditioningEmbeddingDim, 2 * embeddingDim, { bias }, rng);
    if (normType === 'layer_norm') this.norm = new LayerNorm(embeddingDim, { eps, affine, bias });
    else if (normType === 'rms_norm') this.norm = new RMSNorm(embeddingDim, { eps, affine });
    else throw new RangeError(`AdaLayerNormContinuous: normType '${normType}', expected layer_norm or rms_norm`);
  }

  /** @param x tokens [N, L, embeddingDim]. @param condition [N, conditioningEmbeddingDim]. */
  forward(x: Tensor, condition: Tensor): Tensor {
    const [scale, shift] = split(this.linear.forward(activate('silu', condition)), 2, 1);
    return modulate(this.norm.forward(x), shift, scale);
  }
}
