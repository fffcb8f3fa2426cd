import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { type ActivationName, activate } from './activations.js';
import { Linear } from './linear.js';
import { Module } from './module.js';

export interface TextProjectionConfig {
  readonly inFeatures: number;
  readonly hiddenSize: number;
  /** Default `hiddenSize`. */
  readonly outFeatures?: number;
  /** Default 'gelu-approximate' (PixArt's); Stable Diffusion 3 has 'silu'. */
  readonly actFn?: ActivationName;
}

/** Two layers that bring text embeddings [..., inFeatures] to a model's width: [..., outFeatures]. */
export class TextProjection extends Module {
  readonly linear_1: Linear;
  readonly linear_2: Linear;
  private readonly activation: ActivationName;

  constructor(config: TextProjectionConfig, rng: Generator) {
    super();
    const { inFeatures, hiddenSize, outFeatures = hiddenSize, actFn = 'gelu-approximate' } = config;
    this.activation = actFn;
    this.linear_1 = new Linear(inFeatures, hiddenSize, rng);
    this.linear_2 = new Linear(hiddenSize, outFeatures, rng);
  }

  forward(text: Tensor): Tensor {
    return this.linear_2.forward(activate(this.activation, this.linear_1.forward(text)));
  }
}
