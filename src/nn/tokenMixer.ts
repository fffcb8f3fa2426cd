import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { FLASH } from './flash.js';
import { GAU } from './gatedAttention.js';
import { LinearAttention } from './linearAttention.js';
import { Mamba } from './mamba.js';
import type { Module } from './module.js';
import { S4D } from './s4d.js';

/** What can stand in for softmax attention. All but gau are linear in the number of tokens. */
export const tokenMixers = ['linear', 'gau', 'flash', 's4d', 'mamba'] as const;
export type TokenMixerName = (typeof tokenMixers)[number];

/** Tokens [N, L, dim] to tokens of that shape, each of which has seen all. */
export type TokenMixer = Module & { forward(x: Tensor): Tensor };

export interface TokenMixerOptions {
  readonly dim: number;
  readonly heads: number;
  readonly dropout?: number;
}

/** A mixer of the size of the attention it replaces (3 to 4 dim² parameters), without its own norm and residual. */
export function createTokenMixer(name: TokenMixerName, options: TokenMixerOptions, rng: Generator): TokenMixer {
  const { dim, heads, dropout } = options;
  const gated = {
    dim,
    dropout,
    queryKeyDim: dim / heads,
    expansionFactor: 1,
    norm: 'none',
    addResidual: false,
  } as const;
  switch (name) {
    case 'linear':
      return new LinearAttention({ dim, heads }, rng);
    case 'gau':
      return new GAU(gated, rng);
    case 'flash':
      return new FLASH({ ...gated, groupSize: 64 }, rng);
    case 's4d':
      return new S4D({ dModel: dim, dState: 32, dropout, transposed: false, bidirectional: true }, rng);
    case 'mamba':
      return new Mamba({ dModel: dim, dState: 8, expand: 1, bidirectional: true }, rng);
  }
}
