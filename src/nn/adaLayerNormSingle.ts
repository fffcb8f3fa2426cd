import type { Generator } from '../random/index.js';
import { concat, type Tensor } from '../tensor/index.js';
import { activate } from './activations.js';
import { Linear } from './linear.js';
import { Module } from './module.js';
import { TimestepEmbedding } from './timestepEmbedding.js';
import { timestepEmbedding } from './timesteps.js';

/** Height and width, and their ratio, of the wanted picture: PixArt's further conditions. */
export interface SizeCondition {
  /** [N, 2] */
  readonly resolution: Tensor;
  /** [N, 1] */
  readonly aspectRatio: Tensor;
}

/** Timestep [N], and the picture's size when it counts, as one vector [N, embeddingDim]. */
export class CombinedTimestepSizeEmbeddings extends Module {
  readonly timestepEmbedder: TimestepEmbedding;
  readonly resolutionEmbedder?: TimestepEmbedding;
  readonly aspectRatioEmbedder?: TimestepEmbedding;

  constructor(embeddingDim: number, useAdditionalConditions: boolean, rng: Generator) {
    super();
    const embedder = (timeEmbedDim: number) => new TimestepEmbedding({ inChannels: 256, timeEmbedDim }, rng);
    this.timestepEmbedder = embedder(embeddingDim);
    if (useAdditionalConditions) {
      this.resolutionEmbedder = embedder(Math.floor(embeddingDim / 3));
      this.aspectRatioEmbedder = embedder(Math.floor(embeddingDim / 3));
    }
  }

  /** @throws Error when the size is missing where it is needed. */
  forward(timestep: Tensor, size?: SizeCondition): Tensor {
    const sinusoids = (x: Tensor) => timestepEmbedding(x, 256, { flipSinToCos: true, downscaleFreqShift: 0 });
    const ofTime = this.timestepEmbedder.forward(sinusoids(timestep));
    if (!this.resolutionEmbedder || !this.aspectRatioEmbedder) return ofTime;
    if (!size) throw new Error('AdaLayerNormSingle: needs the resolution and the aspect ratio');
    const embed = (embedder: TimestepEmbedding, x: Tensor) =>
      embedder.forward(sinusoids(x.reshape([-1]))).reshape([x.shape[0], -1]);
    const ofSize = [embed(this.resolutionEmbedder, size.resolution), embed(this.aspectRatioEmbedder, size.aspectRatio)];
    return ofTime.add(concat(ofSize, 1));
  }
}

export interface AdaLayerNormSingleConfig {
  readonly embeddingDim: number;
  /** Condition on the picture's size, too. */
  readonly useAdditionalConditions?: boolean;
}

/** adaLN-single (PixArt-alpha, Chen et al. 2024): one modulation for all blocks, which each shift by a table. */
export class AdaLayerNormSingle extends Module {
  readonly emb: CombinedTimestepSizeEmbeddings;
  readonly linear: Linear;

  constructor(config: AdaLayerNormSingleConfig, rng: Generator) {
    super();
    const { embeddingDim, useAdditionalConditions = false } = config;
    this.emb = new CombinedTimestepSizeEmbeddings(embeddingDim, useAdditionalConditions, rng);
    this.linear = new Linear(embeddingDim, 6 * embeddingDim, rng);
  }

  /** @returns the blocks' modulation [N, 6 * embeddingDim], and the embedding [N, embeddingDim] for the head. */
  forward(timestep: Tensor, size?: SizeCondition): { modulation: Tensor; embedding: Tensor } {
    const embedding = this.emb.forward(timestep, size);
    return { modulation: this.linear.forward(activate('silu', embedding)), embedding };
  }
}
