import type { Tensor } from '../tensor/index.js';
import type { Module } from './module.js';

/** A low-rank change of a layer's weight (LoRA, Hu et al. 2021): W + scale * up down. */
export interface LowRank {
  /** Linear: [rank, in]; convolution: [rank, in, kH, kW]. */
  readonly down: Tensor;
  /** Linear: [out, rank]; convolution: [out, rank, 1, 1]. */
  readonly up: Tensor;
  /** alpha / rank, times the weight it is used with: a number, or an input of the graph. */
  readonly scale: number | Tensor;
}

export type LowRanks = ReadonlyMap<Module, readonly LowRank[]>;

let active: LowRanks = new Map();

/** Traces `build` with changed weights: the model knows nothing of it. Inner scopes add to outer ones. */
export function withLowRank<T>(layers: LowRanks, build: () => T): T {
  const outer = active;
  const both = [...new Set([...outer.keys(), ...layers.keys()])];
  active = new Map(both.map((layer) => [layer, [...(outer.get(layer) ?? []), ...(layers.get(layer) ?? [])]]));
  try {
    return build();
  } finally {
    active = outer;
  }
}

/** {@link withLowRank} with several. */
export const withLowRanks = <T>(changes: readonly LowRanks[], build: () => T): T =>
  changes.reduce<() => T>((inner, change) => () => withLowRank(change, inner), build)();

/** A layer's answer `y` with what the scope that is being traced adds to it. */
export const plusLowRank = (layer: Module, y: Tensor, through: (change: LowRank) => Tensor): Tensor =>
  (active.get(layer) ?? []).reduce((sum, change) => sum.add(through(change).mul(change.scale)), y);
