import { type Generator, normalWeights } from '../random/index.js';
import { split, type Tensor, type Variable } from '../tensor/index.js';
import { AdaLayerNorm } from './adaLayerNorm.js';
import { AdaLayerNormContinuous } from './adaLayerNormContinuous.js';
import { AdaLayerNormZero, type Modulation, modulate } from './adaLayerNormZero.js';
import { Attention } from './attention.js';
import { FeedForward, type FeedForwardActivation } from './feedForward.js';
import { LayerNorm } from './layerNorm.js';
import { Module, parameter } from './module.js';
import { perturbed } from './perturbation.js';

const norms = ['layer_norm', 'ada_norm', 'ada_norm_zero', 'ada_norm_single', 'ada_norm_continuous'] as const;
export type TransformerNorm = (typeof norms)[number];
type BlockNorm = LayerNorm | AdaLayerNorm | AdaLayerNormContinuous;

/** The arguments of diffusers' `BasicTransformerBlock`, in camelCase (its spelling kept). */
export interface TransformerBlockConfig {
  readonly dim: number;
  readonly numAttentionHeads: number;
  readonly attentionHeadDim: number;
  readonly dropout?: number;
  /** Width of the context; without it there is no cross-attention. */
  readonly crossAttentionDim?: number;
  /** Default 'geglu'. */
  readonly activationFn?: FeedForwardActivation;
  /** Number of timesteps ('ada_norm') or of classes ('ada_norm_zero'). */
  readonly numEmbedsAdaNorm?: number;
  /** Bias of queries, keys and values; default false. */
  readonly attentionBias?: boolean;
  readonly attentionOutBias?: boolean;
  /** The first attention is over the context, too. */
  readonly onlyCrossAttention?: boolean;
  /** The second attention is over the tokens, too. */
  readonly doubleSelfAttention?: boolean;
  /** Default true. */
  readonly normElementwiseAffine?: boolean;
  /** Default 'layer_norm'. */
  readonly normType?: TransformerNorm;
  /** Default 1e-5. */
  readonly normEps?: number;
  readonly finalDropout?: boolean;
  readonly adaNormContinousConditioningEmbeddingDim?: number;
  readonly adaNormBias?: boolean;
  readonly ffInnerDim?: number;
  readonly ffBias?: boolean;
}

export interface TransformerBlockInputs {
  readonly encoderHiddenStates?: Tensor;
  readonly attentionMask?: Tensor;
  readonly encoderAttentionMask?: Tensor;
  /** Integers [] or [N]; with 'ada_norm_single' the modulation [N, 6 * dim]. */
  readonly timestep?: Tensor;
  readonly classLabels?: Tensor;
  /** The condition of 'ada_norm_continuous'. */
  readonly pooledTextEmb?: Tensor;
}

/** Self-attention, cross-attention and feed-forward, each after a norm and added to its input: tokens [N, L, dim]. */
export class BasicTransformerBlock extends Module {
  readonly norm1: BlockNorm | AdaLayerNormZero;
  readonly attn1: Attention;
  readonly norm2?: BlockNorm;
  readonly attn2?: Attention;
  readonly norm3?: BlockNorm;
  readonly ff: FeedForward;
  /** [6, dim], with 'ada_norm_single'. */
  readonly scaleShiftTable?: Variable;

  /** @throws RangeError for an unknown norm, or one whose sizes are missing. */
  constructor(
    readonly config: TransformerBlockConfig,
    rng: Generator,
  ) {
    super();
    const { dim, dropout, crossAttentionDim, normType = 'layer_norm', activationFn, finalDropout } = config;
    const { onlyCrossAttention = false, doubleSelfAttention = false } = config;
    if (!norms.includes(normType))
      throw new RangeError(`BasicTransformerBlock: normType '${normType}', expected one of ${norms.join(', ')}`);
    const attention = (contextDim?: number) =>
      new Attention(
        {
          queryDim: dim,
          crossAttentionDim: contextDim,
          heads: config.numAttentionHeads,
          dimHead: config.attentionHeadDim,
          dropout,
          bias: config.attentionBias,
          outBias: config.attentionOutBias,
        },
        rng,
      );
    this.norm1 = normType === 'ada_norm_zero' ? createZeroNorm(config, rng) : createNorm(config, 'rms_norm', rng);
    this.attn1 = attention(onlyCrossAttention ? crossAttentionDim : undefined);
    if (crossAttentionDim || doubleSelfAttention) {
      this.norm2 = createNorm(config, 'rms_norm', rng);
      this.attn2 = attention(doubleSelfAttention ? undefined : crossAttentionDim);
    } else if (normType === 'ada_norm_single') this.norm2 = createLayerNorm(config);
    if (normType === 'ada_norm_continuous') this.norm3 = createNorm(config, 'layer_norm', rng);
    else if (normType !== 'ada_norm_single') this.norm3 = createLayerNorm(config);
    this.ff = new FeedForward(
      { dim, dropout, activationFn, finalDropout, innerDim: config.ffInnerDim, bias: config.ffBias },
      rng,
    );
    if (normType === 'ada_norm_single')
      this.scaleShiftTable = parameter(normalWeights(rng, [6, dim], { std: 1 / Math.sqrt(dim) }));
  }

  /** @throws Error when an input that this kind of block needs is missing. */
  forward(x: Tensor, inputs: TransformerBlockInputs = {}): Tensor {
    return perturbed(this, x, () => this.answer(x, inputs));
  }

  private answer(x: Tensor, inputs: TransformerBlockInputs): Tensor {
    const { encoderHiddenStates, attentionMask, encoderAttentionMask } = inputs;
    const { x: normed, gateMsa, shiftMlp, scaleMlp, gateMlp } = this.begin(x, inputs);
    const firstContext = this.config.onlyCrossAttention ? encoderHiddenStates : undefined;
    let y = x.add(gated(this.attn1.forward(normed, { encoderHiddenStates: firstContext, attentionMask }), gateMsa));
    if (this.attn2) {
      // As in PixArt, whose second norm serves the feed-forward.
      const asked = this.scaleShiftTable ? y : this.normed(this.norm2!, y, inputs);
      y = y.add(this.attn2.forward(asked, { encoderHiddenStates, attentionMask: encoderAttentionMask }));
    }
    const last = this.normed((this.norm3 ?? this.norm2)!, y, inputs);
    return y.add(gated(this.ff.forward(shiftMlp && scaleMlp ? modulate(last, shiftMlp, scaleMlp) : last), gateMlp));
  }

  /** The first attention's input, and what the condition does to the rest. */
  private begin(x: Tensor, inputs: TransformerBlockInputs): Partial<Modulation> & { x: Tensor } {
    if (this.norm1 instanceof AdaLayerNormZero) return this.norm1.forward(x, inputs);
    const normed = this.normed(this.norm1, x, inputs);
    if (!this.scaleShiftTable) return { x: normed };
    const { dim } = this.config;
    const perBlock = needed(inputs.timestep, 'the modulation (timestep)')
      .reshape([-1, 6, dim])
      .add(this.scaleShiftTable);
    const [shiftMsa, scaleMsa, gateMsa, shiftMlp, scaleMlp, gateMlp] = split(perBlock, 6, 1).map((v) => v.squeeze(1));
    return { x: modulate(normed, shiftMsa, scaleMsa), gateMsa, shiftMlp, scaleMlp, gateMlp };
  }

  private normed(norm: BlockNorm, x: Tensor, { timestep, pooledTextEmb }: TransformerBlockInputs): Tensor {
    if (norm instanceof AdaLayerNorm) return norm.forward(x, needed(timestep, 'the timestep'));
    if (norm instanceof LayerNorm) return norm.forward(x);
    return norm.forward(x, needed(pooledTextEmb, 'the pooled text embedding'));
  }
}

const gated = (x: Tensor, gate?: Tensor): Tensor => (gate ? x.mul(gate.unsqueeze(1)) : x);

function needed(input: Tensor | undefined, what: string): Tensor {
  if (!input) throw new Error(`BasicTransformerBlock: needs ${what}`);
  return input;
}

const createLayerNorm = (config: TransformerBlockConfig): LayerNorm =>
  new LayerNorm(config.dim, { eps: config.normEps, affine: config.normElementwiseAffine });

function createZeroNorm({ dim, numEmbedsAdaNorm }: TransformerBlockConfig, rng: Generator): AdaLayerNormZero {
  if (!numEmbedsAdaNorm) throw new RangeError('BasicTransformerBlock: ada_norm_zero needs numEmbedsAdaNorm');
  return new AdaLayerNormZero({ embeddingDim: dim, numEmbeddings: numEmbedsAdaNorm }, rng);
}

function createNorm(config: TransformerBlockConfig, continuous: 'layer_norm' | 'rms_norm', rng: Generator): BlockNorm {
  const { dim, normType = 'layer_norm', numEmbedsAdaNorm } = config;
  if (normType === 'ada_norm') {
    if (!numEmbedsAdaNorm) throw new RangeError('BasicTransformerBlock: ada_norm needs numEmbedsAdaNorm');
    return new AdaLayerNorm({ embeddingDim: dim, numEmbeddings: numEmbedsAdaNorm }, rng);
  }
  if (normType !== 'ada_norm_continuous') return createLayerNorm(config);
  const { adaNormContinousConditioningEmbeddingDim: conditioningEmbeddingDim, adaNormBias: bias = false } = config;
  if (!conditioningEmbeddingDim)
    throw new RangeError('BasicTransformerBlock: ada_norm_continuous needs adaNormContinousConditioningEmbeddingDim');
  const { normElementwiseAffine: elementwiseAffine, normEps: eps } = config;
  return new AdaLayerNormContinuous(
    { embeddingDim: dim, conditioningEmbeddingDim, elementwiseAffine, eps, bias, normType: continuous },
    rng,
  );
}
