import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { type ActivationName, activate } from './activations.js';
import { Linear } from './linear.js';
import { Module } from './module.js';

export interface TimestepEmbeddingConfig {
  readonly inChannels: number;
  readonly timeEmbedDim: number;
  /** Default `timeEmbedDim`. */
  readonly outDim?: number;
  /** Default 'silu'. */
  readonly actFn?: ActivationName;
  readonly postActFn?: ActivationName;
  /** Width of a further condition, added to the input after a projection (a latent consistency model's guidance). */
  readonly condProjDim?: number;
  readonly sampleProjBias?: boolean;
}

/** Two layers on top of sinusoids: [N, inChannels] to [N, outDim]. */
export class TimestepEmbedding extends Module {
  readonly linear_1: Linear;
  readonly condProj?: Linear;
  readonly linear_2: Linear;

  constructor(
    readonly config: TimestepEmbeddingConfig,
    rng: Generator,
  ) {
    super();
    const { inChannels, timeEmbedDim, outDim = timeEmbedDim, condProjDim, sampleProjBias: bias = true } = config;
    this.linear_1 = new Linear(inChannels, timeEmbedDim, { bias }, rng);
    if (condProjDim) this.condProj = new Linear(condProjDim, inChannels, { bias: false }, rng);
    this.linear_2 = new Linear(timeEmbedDim, outDim, { bias }, rng);
  }

  /** @throws Error for a condition [N, condProjDim] without `condProjDim`. */
  forward(sample: Tensor, condition?: Tensor): Tensor {
    const { actFn = 'silu', postActFn } = this.config;
    if (condition && !this.condProj) throw new Error('TimestepEmbedding: a condition needs condProjDim');
    const x = condition ? sample.add(this.condProj!.forward(condition)) : sample;
    const y = this.linear_2.forward(activate(actFn, this.linear_1.forward(x)));
    return postActFn ? activate(postActFn, y) : y;
  }
}
