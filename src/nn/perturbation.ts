import { type AttentionOptions, concat, scaledDotProductAttention, split, type Tensor } from '../tensor/index.js';
import type { Module } from './module.js';

/** What the core of an attention layer sees: q [B, H, Q, D] and k, v [B, H, K, D] to [B, H, Q, D]. */
export type AttentionCore = (q: Tensor, k: Tensor, v: Tensor, call: AttentionCall) => Tensor;
export interface AttentionCall extends AttentionOptions {
  /** In joint attention, how many of the leading tokens are the image's; the text follows. Else all queries. */
  readonly imageTokens: number;
}

/** How a layer departs from its model while a perturbed prediction is traced. */
export interface Perturbation {
  /** The layer (attention, feed-forward or whole block) returns its input. */
  readonly skip?: boolean;
  /** Takes the place of softmax(q kᵀ) v, as {@link identityAttention} does. */
  readonly attend?: AttentionCore;
  /** What becomes of the layer's output, such as dropout. */
  readonly output?: (y: Tensor) => Tensor;
}

let active: ReadonlyMap<Module, Perturbation> = new Map();

/**
 * Traces `build` with some layers perturbed. The model knows nothing of it, and what comes before the first
 * perturbed layer is shared with an unperturbed trace of the same inputs. Nested scopes add up, the inner one wins.
 */
export function withPerturbations<T>(layers: ReadonlyMap<Module, Perturbation>, build: () => T): T {
  const outer = active;
  active = new Map([...outer, ...layers]);
  try {
    return build();
  } finally {
    active = outer;
  }
}

export const perturbationOf = (layer: Module): Perturbation | undefined => active.get(layer);

/** What a layer answers to `x`: `forward()`, unless the scope that is being traced says otherwise. */
export function perturbed(layer: Module, x: Tensor, forward: () => Tensor): Tensor {
  const { skip, output } = active.get(layer) ?? {};
  if (skip) return x;
  return output ? output(forward()) : forward();
}

/**
 * Perturbed attention (Ahn et al. 2024): every token sees itself alone, so v comes out. In joint attention the image's
 * tokens see themselves and all of the text, and the text sees everything.
 * @throws RangeError when keys and queries are of different tokens (cross-attention).
 */
export const identityAttention: AttentionCore = (q, k, v, call) => {
  const [tokens, image] = [q.shape[2], call.imageTokens];
  if (k.shape[2] !== tokens)
    throw new RangeError(`identity attention: ${tokens} queries for ${k.shape[2]} keys, expected self-attention`);
  if (image === tokens) return v;
  const [ofImage, ofText] = split(q, [image, tokens - image], 2);
  const [keys, values] = [k, v].map((x) => split(x, [image, tokens - image], 2));
  const itself = ofImage.mul(keys[0]).sum(3, true);
  const scores = concat([itself, ofImage.matmul(keys[1].swapAxes(2, 3))], 3);
  const [alone, text] = split(scores.mul(call.scale ?? q.shape[3] ** -0.5).softmax(), [1, tokens - image], 3);
  const seen = alone.mul(values[0]).add(text.matmul(values[1]));
  return concat([seen, scaledDotProductAttention(ofText, k, v, { scale: call.scale })], 2);
};

/** No scores at all: v comes out wherever it fits, of text tokens, too; cross-attention stays as it is. */
export const skippedScores: AttentionCore = (q, k, v, call) =>
  q.shape[2] === v.shape[2] ? v : scaledDotProductAttention(q, k, v, call);

/** Attention with the image's queries [B, H, tokens, D] blurred (Hong 2024). */
export const blurredQueries =
  (blur: (queries: Tensor) => Tensor): AttentionCore =>
  (q, k, v, call) => {
    const text = q.shape[2] - call.imageTokens;
    const parts = text > 0 ? split(q, [call.imageTokens, text], 2) : [q];
    return scaledDotProductAttention(concat([blur(parts[0]), ...parts.slice(1)], 2), k, v, call);
  };
