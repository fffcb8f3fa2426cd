import { ndarray } from '../array/index.js';
import {
  buffer,
  Embedding,
  FLASH,
  type FlashConfig,
  LayerNorm,
  Linear,
  Module,
  ones,
  parameter,
  RotaryEmbedding,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, constant, type Tensor, type Variable } from '../tensor/index.js';

/** The arguments of FLASH-pytorch's FLASHTransformer. */
export interface FlashTransformerConfig extends Omit<FlashConfig, 'dropout' | 'norm' | 'rotary' | 'addResidual'> {
  readonly numTokens: number;
  readonly depth: number;
  readonly attnDropout?: number;
  /** Default 'scalenorm'. */
  readonly normType?: 'scalenorm' | 'layernorm';
}

/** Sinusoidal positions with one learned scale: all sines, then all cosines. */
class ScaledSinusoid extends Module {
  readonly scale: Variable;
  readonly invFreq: Variable;

  constructor(dim: number) {
    super();
    this.scale = parameter(ones([1]));
    this.invFreq = buffer(ndarray(Array.from({ length: dim / 2 }, (_, i) => 10000 ** ((-2 * i) / dim))));
  }

  /** @returns [length, dim] */
  forward(length: number): Tensor {
    const positions = constant(Array.from({ length }, (_, i) => i)).unsqueeze(1);
    const angles = positions.mul(this.invFreq);
    return concat([angles.sin(), angles.cos()], 1).mul(this.scale);
  }
}

/** A language model of FLASH layers: token ids to logits of the tokens (of the next, when causal). */
export class FlashTransformer extends Module {
  readonly tokenEmb: Embedding;
  readonly absPosEmb: ScaledSinusoid;
  readonly layers: readonly FLASH[];
  readonly norm: LayerNorm;
  readonly toLogits: Linear;

  /** @throws RangeError when the width is odd. */
  constructor(config: FlashTransformerConfig, rng: Generator) {
    super();
    const { numTokens, depth, attnDropout, normType = 'scalenorm', shiftTokens = true, ...shared } = config;
    const { dim, queryKeyDim = 128 } = config;
    if (dim % 2) throw new RangeError(`FlashTransformer: width ${dim}, expected an even one`);
    const norm = normType === 'scalenorm' ? 'scale_norm' : 'layer_norm';
    const rotary = new RotaryEmbedding(Math.min(32, queryKeyDim));
    const layer = { ...shared, dropout: attnDropout, norm, shiftTokens, rotary } as const;
    this.tokenEmb = new Embedding(numTokens, dim, rng);
    this.absPosEmb = new ScaledSinusoid(dim);
    this.layers = Array.from({ length: depth }, () => new FLASH(layer, rng));
    this.norm = new LayerNorm(dim);
    this.toLogits = new Linear(dim, numTokens, rng);
  }

  /**
   * @param ids int64 [N, L]
   * @param mask bool [N, L]: which tokens there are.
   * @returns [N, L, numTokens]
   */
  forward(ids: Tensor, inputs: { mask?: Tensor } = {}): Tensor {
    let x = this.tokenEmb.forward(ids).add(this.absPosEmb.forward(ids.shape[1]));
    for (const layer of this.layers) x = layer.forward(x, inputs);
    return this.toLogits.forward(this.norm.forward(x));
  }
}
