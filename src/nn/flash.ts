import type { Generator } from '../random/index.js';
import { concat, matmul, pad, type Tensor } from '../tensor/index.js';
import { chunked, toMultiple } from './chunks.js';
import { GatedAttention, type GatedAttentionConfig } from './gatedAttention.js';
import { shiftedSum } from './linearAttention.js';
import { RotaryEmbedding } from './relativePosition.js';

export interface FlashConfig extends GatedAttentionConfig {
  /** Tokens among which attention is quadratic; default 256. */
  readonly groupSize?: number;
  /** Channels of queries and keys that carry rotary positions, or their table, shared with others; default none. */
  readonly rotary?: number | RotaryEmbedding;
  /** The first half of the channels comes from the token before; default false. */
  readonly shiftTokens?: boolean;
  /** Without `causal`: the linear part sums over the whole sequence, not over each group alone; default true. */
  readonly reduceGroupNonCausalAttn?: boolean;
}

/**
 * Mixed chunk attention: "Transformer Quality in Linear Time" (Hua et al. 2022), as FLASH-pytorch has it.
 * gate * (relu²(q kᵀ / g + bias) v within groups of g tokens + q' (k'ᵀ v) between them); linear in length.
 */
export class FLASH extends GatedAttention {
  declare readonly config: FlashConfig;
  readonly rotaryPosEmb?: RotaryEmbedding;

  constructor(config: FlashConfig, rng: Generator) {
    super(config, 4, (config.queryKeyDim ?? 128) ** 0.5, rng);
    const { rotary } = config;
    if (rotary) this.rotaryPosEmb = typeof rotary === 'number' ? new RotaryEmbedding(rotary) : rotary;
  }

  /**
   * @param x [N, L, dim]; L need not be a multiple of the group.
   * @param mask bool [N, L]: which tokens there are.
   * @returns [N, L, dim]
   */
  forward(x: Tensor, { mask }: { mask?: Tensor } = {}): Tensor {
    const {
      groupSize: g = 256,

      shiftTokens = false,
      causal,
      reduceGroupNonCausalAttn: whole,
    } = this.config;
    const length = x.shape[1];
    const normed = this.norm ? this.norm.forward(x) : x;
    const { values, gate, copies } = this.project(shiftTokens ? shifted(normed) : normed);
    const masked = copies.map((y, i) => (mask && i === 3 ? y.mul(mask.cast('float32').unsqueeze(2)) : y));
    const grouped = (y: Tensor) => chunked(toMultiple(y, 1, g), 1, g);
    const [quadQ, linQ, quadK, linK] = masked.map((y) => grouped(this.rotaryPosEmb?.forward(y) ?? y));
    const v = grouped(values);

    const scores = matmul(quadQ, quadK, { transB: true, alpha: 1 / g }).add(this.relPosBias.forward(g));
    const groupMask = mask && grouped(mask.cast('float32').unsqueeze(2)).swapAxes(2, 3);
    const within = this.weigh(scores, groupMask).matmul(v);

    const states = matmul(linK, v, { transA: true, alpha: 1 / (causal ? g : length) });
    const between = () => ((whole ?? true) ? states.sum(1, true) : states);
    const y = within.add(linQ.matmul(causal ? shiftedSum(states, 1) : between()));
    const all = y.reshape([y.shape[0], -1, y.shape[3]]).slice(1, 0, length);
    return this.withResidual(x, this.toOut.forward(all.mul(gate)));
  }
}

/** The first half of the channels from the token before. */
function shifted(x: Tensor): Tensor {
  const half = Math.ceil(x.shape[2] / 2);
  const before = pad(x.slice(2, 0, half), [
    [0, 0],
    [1, 0],
    [0, 0],
  ]);
  return concat([before.slice(1, 0, x.shape[1]), x.slice(2, half)], 2);
}
