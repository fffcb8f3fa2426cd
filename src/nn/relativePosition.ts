import { ndarray } from '../array/index.js';
import type { Generator } from '../random/index.js';
import { concat, constant, split, stack, type Tensor, type Variable } from '../tensor/index.js';
import { toeplitz } from './chunks.js';
import { Embedding } from './embedding.js';
import { buffer, Module } from './module.js';

export interface RelativePositionOptions {
  /** Multiplies the bias; default 1. */
  readonly scale?: number;
  /** Keys after the query share the bucket of its own position; default false. */
  readonly causal?: boolean;
  /** Default 32. */
  readonly numBuckets?: number;
  /** Distances from here on share the last bucket; default 128. */
  readonly maxDistance?: number;
}

/**
 * T5's bucket of an offset `key - query` (Raffel et al. 2020): one for each small distance, then logarithmically
 * wider ones; half of them for keys after the query, unless causal.
 */
export function relativePositionBucket(
  offset: number,
  { causal = false, numBuckets = 32, maxDistance = 128 }: RelativePositionOptions = {},
): number {
  const count = causal ? numBuckets : Math.floor(numBuckets / 2);
  const base = !causal && offset > 0 ? count : 0;
  const distance = causal ? Math.max(-offset, 0) : Math.abs(offset);
  const exact = Math.floor(count / 2);
  if (distance < exact) return base + distance;
  // In single precision, as the sources: a bucket's edge may fall on a whole number.
  const { fround } = Math;
  const ratio = fround(fround(Math.log(fround(distance / exact))) / fround(Math.log(maxDistance / exact)));
  return base + Math.min(exact + Math.trunc(fround(ratio * (count - exact))), count - 1);
}

/** A learned bias of attention scores by the distance of query and key: one number for each of T5's buckets. */
export class RelativePositionBias extends Module {
  readonly relativeAttentionBias: Embedding;

  constructor(
    readonly options: RelativePositionOptions,
    rng: Generator,
  ) {
    super();
    this.relativeAttentionBias = new Embedding(options.numBuckets ?? 32, 1, rng);
  }

  /** @returns [queries, keys] */
  forward(queries: number, keys = queries): Tensor {
    const n = Math.max(queries, keys);
    const buckets = Array.from({ length: 2 * n - 1 }, (_, i) => relativePositionBucket(i - n + 1, this.options));
    const values = this.relativeAttentionBias.forward(constant(buckets, 'int64')).squeeze(1);
    return toeplitz(values)
      .slice(0, 0, queries)
      .slice(1, 0, keys)
      .mul(this.options.scale ?? 1);
  }
}

/**
 * Rotary positions (Su et al. 2021): turns neighbouring pairs of the first `dim` channels by angles that grow with
 * the position along the axis before the last.
 */
export class RotaryEmbedding extends Module {
  /** The angle of one position [dim / 2]; not trained. */
  readonly freqs: Variable;

  /** @throws RangeError when `dim` is odd. */
  constructor(
    readonly dim: number,
    theta = 10000,
  ) {
    super();
    if (dim % 2) throw new RangeError(`RotaryEmbedding: ${dim} channels, expected an even number of them`);
    this.freqs = buffer(ndarray(Array.from({ length: dim / 2 }, (_, i) => theta ** ((-2 * i) / dim))));
  }

  /** @param x [..., L, C] @throws RangeError when C is less than `dim`. */
  forward(x: Tensor): Tensor {
    const [length, width] = x.shape.slice(-2);
    const { dim } = this;
    if (dim > width) throw new RangeError(`RotaryEmbedding: ${dim} channels to turn, the input has ${width}`);
    const positions = constant(Array.from({ length }, (_, i) => i)).unsqueeze(1);
    const angles = positions.mul(this.freqs);
    const [cos, sin] = [angles.cos(), angles.sin()];
    const axis = x.rank;
    const pairs = x.slice(axis - 1, 0, dim).reshape([...x.shape.slice(0, -1), dim / 2, 2]);
    const [even, odd] = split(pairs, 2, axis).map((part) => part.squeeze(axis));
    const turned = stack([even.mul(cos).sub(odd.mul(sin)), odd.mul(cos).add(even.mul(sin))], axis);
    const rotated = turned.reshape([...x.shape.slice(0, -1), dim]);
    return dim === width ? rotated : concat([rotated, x.slice(axis - 1, dim)], axis - 1);
  }
}
