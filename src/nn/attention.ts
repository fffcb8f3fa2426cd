import type { Generator } from '../random/index.js';
import { concat, scaledDotProductAttention, split, type Tensor } from '../tensor/index.js';
import { Dropout } from './dropout.js';
import { GroupNorm } from './groupNorm.js';
import { L2Norm } from './l2Norm.js';
import { LayerNorm } from './layerNorm.js';
import { Linear } from './linear.js';
import { Module } from './module.js';
import { perturbationOf, perturbed } from './perturbation.js';
import { RMSNorm } from './rmsNorm.js';
import { SpatialNorm } from './spatialNorm.js';

export type QkNorm = 'layer_norm' | 'fp32_layer_norm' | 'rms_norm' | 'l2';
type HeadNorm = LayerNorm | RMSNorm | L2Norm;

/** The arguments of diffusers' `Attention`, in camelCase. */
export interface AttentionConfig {
  /** Width of the tokens that ask, and of the output unless `outDim` says otherwise. */
  readonly queryDim: number;
  /** Width of the tokens that answer; default `queryDim`. */
  readonly crossAttentionDim?: number;
  /** Default 8. */
  readonly heads?: number;
  /** Width of a head; default 64. */
  readonly dimHead?: number;
  readonly dropout?: number;
  /** Bias of to_q, to_k and to_v; default false. */
  readonly bias?: boolean;
  /** Bias of the output projections; default true. */
  readonly outBias?: boolean;
  /** Normalises the queries and keys of each head. */
  readonly qkNorm?: QkNorm;
  readonly elementwiseAffine?: boolean;
  /** Normalises the context. */
  readonly crossAttentionNorm?: 'layer_norm' | 'group_norm';
  readonly crossAttentionNormNumGroups?: number;
  /** Width of a second stream of tokens, with projections of its own. */
  readonly addedKvProjDim?: number;
  readonly addedProjBias?: boolean;
  /** Of the second stream: absent, it only answers; false, it asks, too (joint attention); true, it has no output. */
  readonly contextPreOnly?: boolean;
  readonly outContextDim?: number;
  /** Attend to the second stream alone. */
  readonly onlyCrossAttention?: boolean;
  /** Leave the output projection out. */
  readonly preOnly?: boolean;
  /** Width of the output, and of all heads together, which are then as many as `dimHead` fits into it. */
  readonly outDim?: number;
  /** Groups of a group norm on the input. */
  readonly normNumGroups?: number;
  readonly spatialNormDim?: number;
  /** Of the group norm and the norms of queries and keys; default 1e-5. */
  readonly eps?: number;
  /** Divide scores by the root of a head's width; default true. */
  readonly scaleQk?: boolean;
  readonly residualConnection?: boolean;
  /** Divides the result; default 1. */
  readonly rescaleOutputFactor?: number;
}

export interface AttentionInputs {
  /** Tokens that answer [N, K, crossAttentionDim] (or addedKvProjDim); default: the asking ones. */
  readonly encoderHiddenStates?: Tensor;
  /** bool (true: attend) or float (added to the scores): [N, K], [N, 1 or Q, K], or [N, 1 or heads, 1 or Q, K]. */
  readonly attentionMask?: Tensor;
  /** The latent map of the spatial norm [N, spatialNormDim, h, w]. */
  readonly temb?: Tensor;
}

/**
 * Multi-head attention (Vaswani et al. 2017) in the forms that diffusers' class of this name has: self and cross
 * attention, joint attention of two streams, and added keys and values; on tokens [N, L, C] or images [N, C, H, W].
 */
export class Attention extends Module {
  readonly groupNorm?: GroupNorm;
  readonly spatialNorm?: SpatialNorm;
  readonly normQ?: HeadNorm;
  readonly normK?: HeadNorm;
  readonly normCross?: LayerNorm | GroupNorm;
  readonly toQ: Linear;
  readonly toK?: Linear;
  readonly toV?: Linear;
  readonly addKProj?: Linear;
  readonly addVProj?: Linear;
  readonly addQProj?: Linear;
  readonly toOut?: readonly [Linear, Dropout];
  readonly toAddOut?: Linear;
  readonly normAddedQ?: HeadNorm;
  readonly normAddedK?: HeadNorm;
  private readonly heads: number;
  private readonly scale: number;

  /**
   * @throws RangeError for an unknown norm, an `outDim` that heads cannot share, or `onlyCrossAttention` without a
   * second stream.
   */
  constructor(
    readonly config: AttentionConfig,
    rng: Generator,
  ) {
    super();
    const {
      queryDim,
      heads = 8,
      dimHead = 64,
      eps = 1e-5,
      bias = false,
      outDim,
      addedKvProjDim,
      contextPreOnly,
    } = config;
    const { crossAttentionDim = queryDim, onlyCrossAttention = false, outBias = true, qkNorm } = config;
    const innerDim = outDim ?? dimHead * heads;
    this.heads = Math.floor(innerDim / dimHead);
    if (innerDim % this.heads !== 0)
      throw new RangeError(`Attention: outDim ${innerDim} cannot be shared by heads of dimHead ${dimHead}`);
    this.scale = (config.scaleQk ?? true) ? 1 / Math.sqrt(innerDim / this.heads) : 1;
    if (onlyCrossAttention && !addedKvProjDim)
      throw new RangeError('Attention: onlyCrossAttention needs addedKvProjDim');

    if (config.normNumGroups) this.groupNorm = new GroupNorm(config.normNumGroups, queryDim, { eps });
    if (config.spatialNormDim) this.spatialNorm = new SpatialNorm(queryDim, config.spatialNormDim, rng);
    const headNorm = () => qkNorm && createHeadNorm(qkNorm, dimHead, eps, config.elementwiseAffine ?? true);
    this.normQ = headNorm();
    this.normK = headNorm();
    this.normCross = createCrossNorm(config, addedKvProjDim ?? crossAttentionDim);

    this.toQ = new Linear(queryDim, innerDim, { bias }, rng);
    if (!onlyCrossAttention) {
      this.toK = new Linear(crossAttentionDim, innerDim, { bias }, rng);
      this.toV = new Linear(crossAttentionDim, innerDim, { bias }, rng);
    }
    if (addedKvProjDim) {
      const added = () => new Linear(addedKvProjDim, innerDim, { bias: config.addedProjBias }, rng);
      this.addKProj = added();
      this.addVProj = added();
      if (contextPreOnly !== undefined) this.addQProj = added();
      this.normAddedQ = headNorm();
      this.normAddedK = headNorm();
    }
    if (!config.preOnly)
      this.toOut = [new Linear(innerDim, outDim ?? queryDim, { bias: outBias }, rng), new Dropout(config.dropout ?? 0)];
    if (contextPreOnly === false)
      this.toAddOut = new Linear(innerDim, config.outContextDim ?? queryDim, { bias: outBias }, rng);
  }

  /** Self or cross attention. The result has the shape of `hiddenStates`, with `outDim` as its width. */
  forward(hiddenStates: Tensor, inputs: AttentionInputs = {}): Tensor {
    return perturbed(this, hiddenStates, () => this.answer(hiddenStates, inputs));
  }

  private answer(hiddenStates: Tensor, { encoderHiddenStates, attentionMask, temb }: AttentionInputs): Tensor {
    if (this.spatialNorm && !temb) throw new Error('Attention: the spatial norm needs its latent map (temb)');
    const x = this.spatialNorm ? this.spatialNorm.forward(hiddenStates, temb!) : hiddenStates;
    const tokens = toTokens(x, this.groupNorm);
    const context = encoderHiddenStates && this.normedContext(encoderHiddenStates);
    const q = this.project(this.toQ, tokens, this.normQ);
    const [k, v] = this.addKProj
      ? this.keysAndValues(tokens, context ?? toTokens(x))
      : [this.project(this.toK!, context ?? tokens, this.normK), this.project(this.toV!, context ?? tokens)];
    const y = this.output(this.attend(q, k, v, tokens.shape[1], attentionMask));
    const shaped = x.rank === 4 ? y.swapAxes(1, 2).reshape([x.shape[0], -1, x.shape[2], x.shape[3]]) : y;
    const residual = this.config.residualConnection || this.addKProj !== undefined;
    return (residual ? shaped.add(hiddenStates) : shaped).div(this.config.rescaleOutputFactor ?? 1);
  }

  /**
   * Joint attention (Esser et al. 2024): image tokens [N, L, queryDim] and text tokens [N, T, addedKvProjDim] ask and
   * answer as one sequence, the image first. With `contextPreOnly` no text comes out.
   */
  forwardJoint(image: Tensor, text: Tensor): { image: Tensor; text?: Tensor } {
    const { skip, output = (y: Tensor) => y } = perturbationOf(this) ?? {};
    if (skip) return { image, text };
    if (!this.addQProj) throw new Error('Attention: joint attention needs addedKvProjDim and contextPreOnly');
    const q = [this.project(this.toQ, image, this.normQ), this.project(this.addQProj, text, this.normAddedQ)];
    const k = [this.project(this.toK!, image, this.normK), this.project(this.addKProj!, text, this.normAddedK)];
    const v = [this.project(this.toV!, image), this.project(this.addVProj!, text)];
    const [imageTokens, textTokens] = [image.shape[1], text.shape[1]];
    const y = this.attend(concat(q, 2), concat(k, 2), concat(v, 2), imageTokens);
    const [ofImage, ofText] = split(y, [imageTokens, textTokens], 1);
    const answer = this.toAddOut?.forward(ofText);
    return { image: output(this.output(ofImage)), text: answer && output(answer) };
  }

  /** The context's added keys and values, and after them the tokens' own. */
  private keysAndValues(tokens: Tensor, context: Tensor): [Tensor, Tensor] {
    const k = this.project(this.addKProj!, context, this.normAddedK);
    const v = this.project(this.addVProj!, context);
    if (!this.toK || !this.toV) return [k, v];
    return [concat([k, this.project(this.toK, tokens, this.normK)], 2), concat([v, this.project(this.toV, tokens)], 2)];
  }

  /** [N, L, C] to [N, heads, L, dimHead] */
  private project(layer: Linear, x: Tensor, norm?: HeadNorm): Tensor {
    const y = layer.forward(x).reshape([x.shape[0], x.shape[1], this.heads, -1]).transpose([0, 2, 1, 3]);
    return norm ? norm.forward(y) : y;
  }

  /** [N, heads, Q, dimHead] to [N, Q, heads * dimHead] */
  private attend(q: Tensor, k: Tensor, v: Tensor, imageTokens: number, mask?: Tensor): Tensor {
    const core = perturbationOf(this)?.attend ?? scaledDotProductAttention;
    const y = core(q, k, v, { mask: mask && maskOfScores(mask), scale: this.scale, imageTokens });
    return y.transpose([0, 2, 1, 3]).reshape([y.shape[0], y.shape[2], -1]);
  }

  private output(x: Tensor): Tensor {
    return this.toOut ? this.toOut[1].forward(this.toOut[0].forward(x)) : x;
  }

  private normedContext(context: Tensor): Tensor {
    if (this.normCross instanceof GroupNorm) return this.normCross.forward(context.swapAxes(1, 2)).swapAxes(1, 2);
    return this.normCross ? this.normCross.forward(context) : context;
  }
}

/** [N, C, H, W] as [N, H * W, C]; the group norm, if any, is over channels and positions. */
function toTokens(x: Tensor, norm?: GroupNorm): Tensor {
  if (x.rank === 3) return norm ? norm.forward(x.swapAxes(1, 2)).swapAxes(1, 2) : x;
  return (norm ? norm.forward(x) : x).reshape([x.shape[0], x.shape[1], -1]).swapAxes(1, 2);
}

function maskOfScores(mask: Tensor): Tensor {
  if (mask.rank < 2 || mask.rank > 4)
    throw new RangeError(`Attention: mask [${mask.shape}], expected [N, K], [N, Q, K] or [N, heads, Q, K]`);
  const [n, ...rest] = mask.shape;
  return mask.reshape([n, ...Array.from({ length: 4 - mask.rank }, () => 1), ...rest]);
}

function createHeadNorm(norm: QkNorm, dimHead: number, eps: number, affine: boolean): HeadNorm {
  if (norm === 'layer_norm') return new LayerNorm(dimHead, { eps, affine });
  if (norm === 'fp32_layer_norm') return new LayerNorm(dimHead, { eps, affine: false });
  if (norm === 'rms_norm') return new RMSNorm(dimHead, { eps, affine });
  if (norm === 'l2') return new L2Norm(eps);
  throw new RangeError(`Attention: qkNorm '${norm}', expected layer_norm, fp32_layer_norm, rms_norm or l2`);
}

function createCrossNorm(config: AttentionConfig, width: number): LayerNorm | GroupNorm | undefined {
  const { crossAttentionNorm: norm, crossAttentionNormNumGroups: groups = 32 } = config;
  if (norm === undefined) return undefined;
  if (norm === 'layer_norm') return new LayerNorm(config.crossAttentionDim ?? config.queryDim);
  if (norm === 'group_norm') return new GroupNorm(groups, width);
  throw new RangeError(`Attention: crossAttentionNorm '${norm}', expected layer_norm or group_norm`);
}
