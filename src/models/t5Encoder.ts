import { z } from 'zod';
import type { NdArray } from '../array/index.js';
import { parseFields } from '../io/index.js';
import {
  type ActivationName,
  activate,
  activationName,
  Embedding,
  isTraining,
  type Linear,
  Module,
  RMSNorm,
  relativePositionBucket,
} from '../nn/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { constant, gather, scaledDotProductAttention, type Tensor } from '../tensor/index.js';
import { normalLinear } from './clip.js';
import { modelConfig, positive } from './config.js';

/** The fields of transformers' T5Config that shape the encoder. */
export const t5Config = modelConfig({
  vocabSize: positive.default(32128),
  dModel: positive.default(512),
  /** Width of a head: the heads together may be wider or narrower than the model. */
  dKv: positive.default(64),
  dFf: positive.default(2048),
  numLayers: positive.default(6),
  numHeads: positive.default(8),
  relativeAttentionNumBuckets: positive.default(32),
  relativeAttentionMaxDistance: positive.default(128),
  dropoutRate: z.number().min(0).max(1).default(0.1),
  layerNormEpsilon: z.number().positive().default(1e-6),
  initializerFactor: z.number().nonnegative().default(1),
  /** An activation, behind `gated-` where it gates: 'relu' in T5, 'gated-gelu' in T5 1.1. */
  feedForwardProj: z.string().default('relu'),
});
export type T5Config = z.output<typeof t5Config>;
export type T5Options = z.input<typeof t5Config>;

const line = (from: number, to: number, std: number, rng: Generator) =>
  normalLinear(from, to, { std, bias: false }, rng);

class T5Attention extends Module {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  /** [buckets, heads]; of the first block, for all. */
  readonly relativeAttentionBias?: Embedding;

  constructor(
    private readonly config: T5Config,
    first: boolean,
    rng: Generator,
  ) {
    super();
    const { dModel, dKv, numHeads, relativeAttentionNumBuckets: buckets, initializerFactor: factor } = config;
    const inner = numHeads * dKv;
    // Scores are not divided by √dKv: the first weights of q make up for it.
    this.q = line(dModel, inner, factor * (dModel * dKv) ** -0.5, rng);
    this.k = line(dModel, inner, factor * dModel ** -0.5, rng);
    this.v = line(dModel, inner, factor * dModel ** -0.5, rng);
    this.o = line(inner, dModel, factor * inner ** -0.5, rng);
    if (!first) return;
    this.relativeAttentionBias = new Embedding(buckets, numHeads, rng);
    const std = factor * dModel ** -0.5;
    this.relativeAttentionBias.weight.set(normalWeights(rng, [buckets, numHeads], { std }));
  }

  /** What a token at one place thinks of a token at another, by how far they are apart: [1, heads, L, L]. */
  positionBias(length: number): Tensor {
    const { relativeAttentionNumBuckets: numBuckets, relativeAttentionMaxDistance: maxDistance } = this.config;
    const buckets = Array.from({ length: length * length }, (_, i) =>
      relativePositionBucket((i % length) - Math.floor(i / length), { numBuckets, maxDistance }),
    );
    const places = constant(buckets, 'int64').reshape([length, length]);
    return gather(this.relativeAttentionBias!.weight, places).transpose([2, 0, 1]).unsqueeze(0);
  }

  forward(x: Tensor, bias: Tensor): Tensor {
    const [n, length] = x.shape;
    const [q, k, v] = [this.q, this.k, this.v].map((layer) =>
      layer.forward(x).reshape([n, length, this.config.numHeads, -1]).swapAxes(1, 2),
    );
    const attended = scaledDotProductAttention(q, k, v, { mask: bias, scale: 1 });
    return this.o.forward(attended.swapAxes(1, 2).reshape([n, length, -1]));
  }
}

class T5LayerSelfAttention extends Module {
  readonly SelfAttention: T5Attention;
  readonly layerNorm: RMSNorm;

  constructor(config: T5Config, first: boolean, rng: Generator) {
    super();
    this.SelfAttention = new T5Attention(config, first, rng);
    this.layerNorm = new RMSNorm(config.dModel, { eps: config.layerNormEpsilon });
  }

  forward(x: Tensor, bias: Tensor): Tensor {
    return x.add(this.SelfAttention.forward(this.layerNorm.forward(x), bias));
  }
}

class T5Dense extends Module {
  readonly wi?: Linear;
  readonly wi_0?: Linear;
  readonly wi_1?: Linear;
  readonly wo: Linear;
  private readonly activation: ActivationName;

  constructor({ dModel, dFf, feedForwardProj, initializerFactor: factor }: T5Config, rng: Generator) {
    super();
    const gated = feedForwardProj.startsWith('gated-');
    const first = () => line(dModel, dFf, factor * dModel ** -0.5, rng);
    if (gated) {
      this.wi_0 = first();
      this.wi_1 = first();
    } else this.wi = first();
    this.wo = line(dFf, dModel, factor * dFf ** -0.5, rng);
    // transformers computes gated-gelu by its approximation with tanh.
    this.activation =
      feedForwardProj === 'gated-gelu' ? 'gelu_new' : activationName(feedForwardProj.replace('gated-', ''));
  }

  forward(x: Tensor): Tensor {
    const { wi, wi_0, wi_1, wo } = this;
    const active = activate(this.activation, (wi ?? wi_0!).forward(x));
    return wo.forward(wi_1 ? active.mul(wi_1.forward(x)) : active);
  }
}

class T5LayerFF extends Module {
  readonly DenseReluDense: T5Dense;
  readonly layerNorm: RMSNorm;

  constructor(config: T5Config, rng: Generator) {
    super();
    this.DenseReluDense = new T5Dense(config, rng);
    this.layerNorm = new RMSNorm(config.dModel, { eps: config.layerNormEpsilon });
  }

  forward(x: Tensor): Tensor {
    return x.add(this.DenseReluDense.forward(this.layerNorm.forward(x)));
  }
}

class T5Block extends Module {
  readonly layer: readonly [T5LayerSelfAttention, T5LayerFF];

  constructor(config: T5Config, first: boolean, rng: Generator) {
    super();
    this.layer = [new T5LayerSelfAttention(config, first, rng), new T5LayerFF(config, rng)];
  }

  forward(x: Tensor, bias: Tensor): Tensor {
    return this.layer[1].forward(this.layer[0].forward(x, bias));
  }
}

class T5Stack extends Module {
  readonly block: readonly T5Block[];
  readonly finalLayerNorm: RMSNorm;

  constructor(config: T5Config, rng: Generator) {
    super();
    this.block = Array.from({ length: config.numLayers }, (_, i) => new T5Block(config, i === 0, rng));
    this.finalLayerNorm = new RMSNorm(config.dModel, { eps: config.layerNormEpsilon });
  }

  forward(x: Tensor, mask?: Tensor): Tensor {
    const [n, length] = x.shape;
    const places = this.block[0].layer[0].SelfAttention.positionBias(length);
    const bias = mask ? places.add(mask.cast('float32').sub(1).mul(-lowest).reshape([n, 1, 1, length])) : places;
    return this.finalLayerNorm.forward(this.block.reduce((y, block) => block.forward(y, bias), x));
  }
}

/** Added to the scores of tokens that do not count, as transformers does. */
const lowest = -3.4028234663852886e38;

/**
 * The encoder of T5 (Raffel et al. 2020) and T5 1.1, laid out as transformers' T5EncoderModel: the text encoder of
 * PixArt, and the third of Stable Diffusion 3. Positions are told by a bias of the scores alone, so texts may be of any
 * length.
 */
export class T5EncoderModel extends Module {
  static readonly className = 'T5EncoderModel';
  readonly shared: Embedding;
  readonly encoder: T5Stack;
  readonly config: T5Config;

  /**
   * @param rng initial weights are drawn from it, as widely as transformers does.
   * @throws TypeError for a config field that is unknown or out of range, RangeError for an unknown activation.
   */
  constructor(options: T5Options, rng: Generator) {
    super();
    this.config = parseFields(T5EncoderModel.className, t5Config, options);
    const { vocabSize, dModel, initializerFactor } = this.config;
    this.shared = new Embedding(vocabSize, dModel, rng);
    this.shared.weight.set(normalWeights(rng, [vocabSize, dModel], { std: initializerFactor }));
    this.encoder = new T5Stack(this.config, rng);
  }

  /**
   * @param inputIds int64 [N, L].
   * @param inputs.attentionMask [N, L], 1 where a token counts and 0 where it does not; default: all count.
   * @returns the last layer's states, [N, L, dModel].
   * @throws RangeError for token ids of another shape, Error in training with dropout.
   */
  forward(inputIds: Tensor, { attentionMask }: { readonly attentionMask?: Tensor } = {}): Tensor {
    if (inputIds.rank !== 2) throw new RangeError(`T5EncoderModel: token ids [${inputIds.shape}], expected [N, L]`);
    if (this.config.dropoutRate && isTraining())
      throw new Error('T5EncoderModel: cannot train with dropout; set dropoutRate to 0');
    return this.encoder.forward(this.shared.forward(inputIds), attentionMask);
  }

  /** Checkpoints may hold the embeddings a second time, under the encoder's name, or only there. */
  override loadStateDict(state: ReadonlyMap<string, NdArray>): void {
    const { [twin]: embeddings, ...others } = Object.fromEntries(state);
    const own = new Map(Object.entries(others));
    if (embeddings && !own.has('shared.weight')) own.set('shared.weight', embeddings);
    super.loadStateDict(own);
  }
}

const twin = 'encoder.embed_tokens.weight';
