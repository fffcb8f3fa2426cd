import type { Generator } from '../random/index.js';
import { split, type Tensor } from '../tensor/index.js';
import { activate } from './activations.js';
import { Embedding } from './embedding.js';
import { LayerNorm } from './layerNorm.js';
import { Linear } from './linear.js';
import { Module } from './module.js';

export interface AdaLayerNormConfig {
  readonly embeddingDim: number;
  /** Number of timesteps, for a norm that embeds the timestep itself. */
  readonly numEmbeddings?: number;
  /** Twice the width of the tokens; default `2 * embeddingDim`. */
  readonly outputDim?: number;
  readonly normElementwiseAffine?: boolean;
  /** Default 1e-5. */
  readonly normEps?: number;
  /** 1: the projection is (shift, scale), as in CogVideoX; else (scale, shift). */
  readonly chunkDim?: number;
}

/** Layer norm whose scale and shift come from the timestep: norm(x) (1 + scale) + shift. */
export class AdaLayerNorm extends Module {
  readonly emb?: Embedding;
  readonly linear: Linear;
  readonly norm: LayerNorm;

  constructor(
    readonly config: AdaLayerNormConfig,
    rng: Generator,
  ) {
    super();
    const { embeddingDim, numEmbeddings, outputDim = 2 * embeddingDim } = config;
    if (numEmbeddings) this.emb = new Embedding(numEmbeddings, embeddingDim, rng);
    this.linear = new Linear(embeddingDim, outputDim, rng);
    this.norm = new LayerNorm(outputDim / 2, { eps: config.normEps, affine: config.normElementwiseAffine ?? false });
  }

  /**
   * @param x tokens [N, L, C].
   * @param timestep integers [] or [N], or with no `numEmbeddings` an embedding [embeddingDim] or [N, embeddingDim].
   */
  forward(x: Tensor, timestep: Tensor): Tensor {
    const embedding = this.emb ? this.emb.forward(timestep) : timestep;
    const halves = split(this.linear.forward(activate('silu', embedding)), 2, -1);
    const [scale, shift] = this.config.chunkDim === 1 ? [halves[1], halves[0]] : halves;
    const perToken = (v: Tensor) => v.reshape([-1, 1, v.shape.at(-1)!]);
    return this.norm
      .forward(x)
      .mul(perToken(scale.add(1)))
      .add(perToken(shift));
  }
}
