import type { Generator } from '../random/index.js';
import { concat, constant, matmul, pad, relu, type Tensor } from '../tensor/index.js';
import { chunked, lowerTriangle, toMultiple } from './chunks.js';
import { Linear } from './linear.js';
import { Module } from './module.js';

/** elu(x) + 1: x + 1 above zero, exp(x) below. The feature map phi of "Transformers are RNNs". */
export const eluPlusOne = (x: Tensor): Tensor => relu(x).add(x.minimum(0).exp());

export interface LinearAttentionOptions {
  /** Each token attends to itself and those before it; default false. */
  readonly causal?: boolean;
  /** bool [N, S]: which keys there are; default all. */
  readonly keyMask?: Tensor;
  /** Added to the normaliser; default 1e-6. */
  readonly eps?: number;
  /** Tokens that the causal form takes at once; default 64. */
  readonly chunk?: number;
}

/**
 * Attention with the kernel phi(q)·phi(k) in place of the softmax, linear in length: "Transformers are RNNs"
 * (Katharopoulos et al. 2020), as fast-transformers has it (scores are not scaled).
 *
 * phi(Q) (phi(K)ᵀ V) / (phi(Q) · sum phi(K) + eps). The causal form sums over chunks: within one by a masked
 * product of queries and keys, from those before by the running state phi(K)ᵀ V.
 * @param queries [N, L, heads, E]
 * @param keys [N, S, heads, E]; L = S when causal
 * @param values [N, S, heads, M]
 * @returns [N, L, heads, M]
 * @throws RangeError when shapes do not fit.
 */
export function linearAttention(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  { causal = false, keyMask, eps = 1e-6, chunk = 64 }: LinearAttentionOptions = {},
): Tensor {
  const [n, length, heads, width] = queries.shape;
  const fits = `${keys.shape}` === `${[n, values.shape[1], heads, width]}` && values.shape[2] === heads;
  if (!fits || (causal && keys.shape[1] !== length))
    throw new RangeError(
      `linearAttention: queries [${queries.shape}] do not fit keys [${keys.shape}] and values [${values.shape}]`,
    );
  const byHead = (x: Tensor) => x.transpose([0, 2, 1, 3]);
  const phiQ = byHead(eluPlusOne(queries));
  const seen = eluPlusOne(keys);
  const phiK = byHead(keyMask ? seen.mul(keyMask.cast('float32').reshape([n, -1, 1, 1])) : seen);
  // A column of ones makes the normaliser one more value.
  const v = byHead(concat([values, constant(1).expand([...values.shape.slice(0, 3), 1])], 3));
  const sums = causal ? causalProduct(phiQ, phiK, v, chunk) : phiQ.matmul(matmul(phiK, v, { transA: true }));
  const last = values.shape[3];
  return byHead(sums.slice(3, 0, last).div(sums.slice(3, last).add(eps)));
}

/** sum over s <= l of (q_l · k_s) v_s, for [..., L, E] and [..., L, M], chunk by chunk. */
export function causalProduct(q: Tensor, k: Tensor, v: Tensor, chunk: number): Tensor {
  const length = q.shape.at(-2)!;
  const size = Math.min(chunk, length);
  const axis = q.rank - 2;
  const [queries, keys, values] = [q, k, v].map((x) => chunked(toMultiple(x, axis, size), axis, size));
  const within = matmul(queries, keys, { transB: true }).mul(lowerTriangle(size)).matmul(values);
  const before = shiftedSum(matmul(keys, values, { transA: true }), axis);
  const all = within.add(queries.matmul(before));
  return all.reshape([...v.shape.slice(0, axis), -1, v.shape.at(-1)!]).slice(axis, 0, length);
}

/** The sum of all earlier elements along an axis: zero for the first. */
export function shiftedSum(x: Tensor, axis: number): Tensor {
  const before = x.slice(axis, 0, x.shape[axis] - 1);
  const pads = x.shape.map((_, i): [number, number] => [i === axis ? 1 : 0, 0]);
  return before.size === 0 ? x.mul(0) : pad(before, pads).cumsum(axis);
}

export interface LinearAttentionConfig {
  readonly dim: number;
  readonly heads: number;
  /** Width of a head's queries and keys; default dim / heads. */
  readonly dimKeys?: number;
  /** Width of a head's values; default dim / heads. */
  readonly dimValues?: number;
  readonly causal?: boolean;
  readonly eps?: number;
}

/** Multi-head linear attention with projections of queries, keys and values, and of the result. */
export class LinearAttention extends Module {
  readonly queryProjection: Linear;
  readonly keyProjection: Linear;
  readonly valueProjection: Linear;
  readonly outProjection: Linear;

  /** @throws RangeError when the heads do not divide the width. */
  constructor(
    readonly config: LinearAttentionConfig,
    rng: Generator,
  ) {
    super();
    const { dim, heads, dimKeys = dim / heads, dimValues = dim / heads } = config;
    if (!Number.isInteger(dimKeys) || !Number.isInteger(dimValues))
      throw new RangeError(`LinearAttention: ${heads} heads do not divide a width of ${dim}`);
    this.queryProjection = new Linear(dim, heads * dimKeys, rng);
    this.keyProjection = new Linear(dim, heads * dimKeys, rng);
    this.valueProjection = new Linear(dim, heads * dimValues, rng);
    this.outProjection = new Linear(heads * dimValues, dim, rng);
  }

  /**
   * @param x [N, L, dim]
   * @param context [N, S, dim] that answers; default `x`.
   * @param keyMask bool [N, S]
   */
  forward(x: Tensor, { context = x, keyMask }: { context?: Tensor; keyMask?: Tensor } = {}): Tensor {
    const { heads, causal, eps } = this.config;
    const byHead = (y: Tensor) => y.reshape([y.shape[0], y.shape[1], heads, -1]);
    const y = linearAttention(
      byHead(this.queryProjection.forward(x)),
      byHead(this.keyProjection.forward(context)),
      byHead(this.valueProjection.forward(context)),
      { causal, keyMask, eps },
    );
    return this.outProjection.forward(y.reshape([x.shape[0], x.shape[1], -1]));
  }
}
