import type { Generator } from '../random/index.js';
import { normalize, split, type Tensor } from '../tensor/index.js';
import { activate } from './activations.js';
import { CombinedTimestepLabelEmbeddings } from './combinedEmbeddings.js';
import { Linear } from './linear.js';
import { Module } from './module.js';

/** x (1 + scale) + shift for tokens x [N, L, C] and scale, shift [N, C]: the DiT paper's `modulate`. */
export const modulate = (x: Tensor, shift: Tensor, scale: Tensor): Tensor =>
  x.mul(scale.add(1).unsqueeze(1)).add(shift.unsqueeze(1));

/** The condition of a block: timestep and class label (with an embedder of its own), or an embedding [N, C]. */
export interface BlockCondition {
  readonly timestep?: Tensor;
  readonly classLabels?: Tensor;
  readonly emb?: Tensor;
}

/** Gates and modulation that the rest of a block uses, each [N, C]. */
export interface Modulation {
  readonly gateMsa: Tensor;
  readonly shiftMlp: Tensor;
  readonly scaleMlp: Tensor;
  readonly gateMlp: Tensor;
}

export interface AdaLayerNormZeroConfig {
  readonly embeddingDim: number;
  /** Number of classes, for a norm that embeds timestep and label itself. */
  readonly numEmbeddings?: number;
  /** Above 0 (default 0.1) there is a null class. */
  readonly classDropoutProb?: number;
  readonly bias?: boolean;
}

/** Layer norm whose scale, shift and gates come from the condition (adaLN-Zero, Peebles and Xie 2023). */
export class AdaLayerNormZero extends Module {
  readonly emb?: CombinedTimestepLabelEmbeddings;
  readonly linear: Linear;

  constructor(config: AdaLayerNormZeroConfig, rng: Generator) {
    super();
    const { embeddingDim, numEmbeddings, classDropoutProb = 0.1, bias = true } = config;
    if (numEmbeddings)
      this.emb = new CombinedTimestepLabelEmbeddings(numEmbeddings, embeddingDim, classDropoutProb, rng);
    this.linear = new Linear(embeddingDim, 6 * embeddingDim, { bias }, rng);
  }

  /** @param x tokens [N, L, C]. @throws Error when the condition lacks what this norm needs. */
  forward(x: Tensor, { timestep, classLabels, emb }: BlockCondition): Modulation & { x: Tensor } {
    if (this.emb && !(timestep && classLabels)) throw new Error('AdaLayerNormZero: needs a timestep and class labels');
    const condition = this.emb ? this.emb.forward(timestep!, classLabels!) : emb;
    if (!condition) throw new Error('AdaLayerNormZero: needs an embedding');
    const [shiftMsa, scaleMsa, gateMsa, shiftMlp, scaleMlp, gateMlp] = split(
      this.linear.forward(activate('silu', condition)),
      6,
      1,
    );
    return { x: modulate(normalize(x, 1, 1e-6), shiftMsa, scaleMsa), gateMsa, shiftMlp, scaleMlp, gateMlp };
  }
}

export interface SD35AdaLayerNormZeroXConfig {
  readonly embeddingDim: number;
  readonly bias?: boolean;
}

/** The same with a second modulated copy of x, for blocks with a second attention (Stable Diffusion 3.5). */
export class SD35AdaLayerNormZeroX extends Module {
  readonly linear: Linear;

  constructor(config: SD35AdaLayerNormZeroXConfig, rng: Generator) {
    super();
    this.linear = new Linear(config.embeddingDim, 9 * config.embeddingDim, { bias: config.bias }, rng);
  }

  /** @param x tokens [N, L, C]. @param emb condition [N, C]. */
  forward(x: Tensor, emb: Tensor): Modulation & { x: Tensor; x2: Tensor; gateMsa2: Tensor } {
    const chunks = split(this.linear.forward(activate('silu', emb)), 9, 1);
    const [shiftMsa, scaleMsa, gateMsa, shiftMlp, scaleMlp, gateMlp, shiftMsa2, scaleMsa2, gateMsa2] = chunks;
    const normed = normalize(x, 1, 1e-6);
    return {
      x: modulate(normed, shiftMsa, scaleMsa),
      gateMsa,
      shiftMlp,
      scaleMlp,
      gateMlp,
      x2: modulate(normed, shiftMsa2, scaleMsa2),
      gateMsa2,
    };
  }
}
