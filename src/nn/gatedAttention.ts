import { zeros } from '../array/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { matmul, relu, split, type Tensor, type Variable } from '../tensor/index.js';
import { activate } from './activations.js';
import { lowerTriangle } from './chunks.js';
import { Dropout } from './dropout.js';
import { LayerNorm } from './layerNorm.js';
import { Linear } from './linear.js';
import { Module, ones, parameter } from './module.js';
import { RelativePositionBias } from './relativePosition.js';

/** relu(x)²: what "Transformer Quality in Linear Time" has in place of the softmax. */
export const reluSquared = (x: Tensor): Tensor => relu(x).square();

/** (1 + erf((x - mu) / (sigma sqrt 2))) / 2 with mu = sqrt(1/2), sigma = sqrt(1/4 pi): Mega's smooth relu². */
export const laplaceAttention = (x: Tensor): Tensor =>
  x
    .sub(Math.sqrt(0.5))
    .mul(Math.sqrt(2 * Math.PI))
    .erf()
    .add(1)
    .mul(0.5);

/** x / max(|x| / sqrt(dim), eps) with one learned scale (Nguyen and Salazar 2019). */
export class ScaleNorm extends Module {
  readonly g: Variable;

  constructor(readonly eps = 1e-5) {
    super();
    this.g = parameter(ones([1]));
  }

  forward(x: Tensor): Tensor {
    const square = x.square().mean(-1, true);
    return x.mul(square.maximum(this.eps ** 2).rsqrt()).mul(this.g);
  }
}

export type GatedAttentionNorm = 'layer_norm' | 'scale_norm' | 'none';

export const gatedAttentionNorm = (norm: GatedAttentionNorm, dim: number): LayerNorm | ScaleNorm | undefined => {
  if (norm === 'layer_norm') return new LayerNorm(dim);
  return norm === 'scale_norm' ? new ScaleNorm() : undefined;
};

/** Several scaled and shifted copies of one vector: how queries and keys come from the same projection. */
export class OffsetScale extends Module {
  /** [copies, dim] */
  readonly gamma: Variable;
  /** [copies, dim] */
  readonly beta: Variable;

  constructor(dim: number, copies: number, rng: Generator) {
    super();
    this.gamma = parameter(normalWeights(rng, [copies, dim], { std: 0.02 }));
    this.beta = parameter(zeros([copies, dim]));
  }

  forward(x: Tensor): Tensor[] {
    const copies = this.gamma.shape[0];
    const [gammas, betas] = [split(this.gamma, copies), split(this.beta, copies)];
    return gammas.map((gamma, i) => x.mul(gamma.squeeze(0)).add(betas[i].squeeze(0)));
  }
}

/** What GAU and FLASH share; names and defaults are FLASH-pytorch's. */
export interface GatedAttentionConfig {
  readonly dim: number;
  /** Default 128. */
  readonly queryKeyDim?: number;
  /** Width of values and gate, in `dim`; default 2. */
  readonly expansionFactor?: number;
  readonly causal?: boolean;
  readonly dropout?: number;
  /** {@link laplaceAttention} in place of {@link reluSquared}. */
  readonly laplaceAttnFn?: boolean;
  /** Before the projections; default 'layer_norm'. */
  readonly norm?: GatedAttentionNorm;
  /** Add the input to the result; default true. */
  readonly addResidual?: boolean;
}

export interface GauInputs {
  /** [L, L] or what broadcasts to [N, L, L]: added to the scores. */
  readonly relPosBias?: Tensor;
  /** bool [N, L]: which tokens there are. */
  readonly mask?: Tensor;
}

/** The parts of a gated attention unit before its scores: values, gate and the common projection of queries and keys. */
export abstract class GatedAttention extends Module {
  readonly norm?: LayerNorm | ScaleNorm;
  readonly toHidden: Linear;
  readonly toQk: Linear;
  readonly offsetScale: OffsetScale;
  readonly toOut: Linear;
  readonly relPosBias: RelativePositionBias;
  protected readonly dropout: Dropout;

  /** @param copies of the projection: how many kinds of queries and keys there are. */
  protected constructor(
    readonly config: GatedAttentionConfig,
    copies: number,
    biasScale: number,
    rng: Generator,
  ) {
    super();
    const { dim, queryKeyDim = 128, expansionFactor = 2, causal, norm = 'layer_norm', dropout = 0 } = config;
    const hidden = Math.trunc(expansionFactor * dim);
    this.norm = gatedAttentionNorm(norm, dim);
    this.toHidden = new Linear(dim, 2 * hidden, rng);
    this.toQk = new Linear(dim, queryKeyDim, rng);
    this.offsetScale = new OffsetScale(queryKeyDim, copies, rng);
    this.toOut = new Linear(hidden, dim, rng);
    this.relPosBias = new RelativePositionBias({ scale: biasScale, causal }, rng);
    this.dropout = new Dropout(dropout);
  }

  protected project(x: Tensor): { values: Tensor; gate: Tensor; copies: Tensor[] } {
    const [values, gate] = split(activate('silu', this.toHidden.forward(x)), 2, 2);
    return { values, gate, copies: this.offsetScale.forward(activate('silu', this.toQk.forward(x))) };
  }

  /** Scores [..., Q, K] as weights; what is masked or, if causal, later is zero and the rest is not renormalised. */
  protected weigh(scores: Tensor, mask?: Tensor): Tensor {
    const { causal, laplaceAttnFn } = this.config;
    const weights = this.dropout.forward((laplaceAttnFn ? laplaceAttention : reluSquared)(scores));
    const seen = mask ? weights.mul(mask.cast('float32')) : weights;
    return causal ? seen.mul(lowerTriangle(scores.shape.at(-1)!)) : seen;
  }

  protected withResidual(x: Tensor, y: Tensor): Tensor {
    return (this.config.addResidual ?? true) ? y.add(x) : y;
  }
}

/**
 * Gated attention unit: "Transformer Quality in Linear Time" (Hua et al. 2022), as FLASH-pytorch has it:
 * gate * (relu²((q kᵀ + bias) / L) v), one head, quadratic in length.
 */
export class GAU extends GatedAttention {
  constructor(config: GatedAttentionConfig, rng: Generator) {
    super(config, 2, config.dim ** 0.5, rng);
  }

  /** @param x [N, L, dim] @returns [N, L, dim] */
  forward(x: Tensor, { relPosBias, mask }: GauInputs = {}): Tensor {
    const length = x.shape[1];
    const { values, gate, copies } = this.project(this.norm ? this.norm.forward(x) : x);
    const [q, k] = copies;
    const biased = matmul(q, k, { transB: true }).add(this.relPosBias.forward(length));
    const scores = (relPosBias ? biased.add(relPosBias) : biased).div(length);
    const attended = this.weigh(scores, mask?.unsqueeze(1)).matmul(values);
    return this.withResidual(x, this.dropout.forward(this.toOut.forward(attended.mul(gate))));
  }
}
