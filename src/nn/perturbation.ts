import type { AttentionOptions, Tensor } from '../tensor/index.js';
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
  /** Takes the place of softmax(q kᵀ) v; `(q, k, v) => v` is identity attention (Ahn et al. 2024). */
  readonly attend?: AttentionCore;
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
