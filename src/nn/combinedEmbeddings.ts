import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { LabelEmbedding } from './labelEmbedding.js';
import { Module } from './module.js';
import { TextProjection } from './textProjection.js';
import { TimestepEmbedding } from './timestepEmbedding.js';
import { timestepEmbedding } from './timesteps.js';

/** Timestep [N] and class label [N] as one vector [N, embeddingDim]: DiT's condition. */
export class CombinedTimestepLabelEmbeddings extends Module {
  readonly timestepEmbedder: TimestepEmbedding;
  readonly classEmbedder: LabelEmbedding;

  constructor(numClasses: number, embeddingDim: number, classDropoutProb: number, rng: Generator) {
    super();
    this.timestepEmbedder = new TimestepEmbedding({ inChannels: 256, timeEmbedDim: embeddingDim }, rng);
    this.classEmbedder = new LabelEmbedding(numClasses, embeddingDim, classDropoutProb, rng);
  }

  forward(timestep: Tensor, classLabels: Tensor): Tensor {
    const sinusoids = timestepEmbedding(timestep, 256, { flipSinToCos: true, downscaleFreqShift: 1 });
    return this.timestepEmbedder.forward(sinusoids).add(this.classEmbedder.forward(classLabels));
  }
}

/** Timestep [N] and pooled text [N, pooledProjectionDim] as one vector [N, embeddingDim]: Stable Diffusion 3's condition. */
export class CombinedTimestepTextProjEmbeddings extends Module {
  readonly timestepEmbedder: TimestepEmbedding;
  readonly textEmbedder: TextProjection;

  constructor(embeddingDim: number, pooledProjectionDim: number, rng: Generator) {
    super();
    this.timestepEmbedder = new TimestepEmbedding({ inChannels: 256, timeEmbedDim: embeddingDim }, rng);
    this.textEmbedder = new TextProjection(
      { inFeatures: pooledProjectionDim, hiddenSize: embeddingDim, actFn: 'silu' },
      rng,
    );
  }

  forward(timestep: Tensor, pooledProjection: Tensor): Tensor {
    const sinusoids = timestepEmbedding(timestep, 256, { flipSinToCos: true, downscaleFreqShift: 0 });
    return this.timestepEmbedder.forward(sinusoids).add(this.textEmbedder.forward(pooledProjection));
  }
}
