import { z } from 'zod';
import { LinearAttention, linearAttention } from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { constant, type Tensor } from '../../src/tensor/index.js';
import type { Adapter } from '../adapter.js';
import { type Inputs, moduleAdapter, runOnInputs } from './h_mixers.js';

const layerConfig = z.object({
  d_model: z.number(),
  n_heads: z.number(),
  d_keys: z.number().optional(),
  d_values: z.number().optional(),
  causal: z.boolean().optional(),
});

/** bool [N, S] of the lengths int64 [N]. */
function keyMaskOf({ key_lengths: lengths }: Inputs, count: number): Tensor | undefined {
  const positions = constant(
    Array.from({ length: count }, (_, i) => i),
    'int64',
  );
  return lengths && positions.unsqueeze(0).less(lengths.unsqueeze(1));
}

const attention =
  (causal: boolean): Adapter =>
  (reference) =>
    runOnInputs(reference, (x) =>
      linearAttention(x.queries, x.keys, x.values, { causal, keyMask: keyMaskOf(x, x.keys.shape[1]) }),
    );

const layer = moduleAdapter(
  ({ config, name }) => {
    const { d_model: dim, n_heads: heads, d_keys: dimKeys, d_values: dimValues, causal } = layerConfig.parse(config);
    // The layer is given its attention ready-made, and only the name of the case tells which.
    return new LinearAttention(
      { dim, heads, dimKeys, dimValues, causal: causal ?? /(?<!non_?)causal/.test(name) },
      new Generator(0),
    );
  },
  (module, x) => module.forward(x.x, { keyMask: keyMaskOf(x, x.x.shape[1]) }),
);

export const adapters: Readonly<Record<string, Adapter>> = {
  LinearAttention: attention(false),
  CausalLinearAttention: attention(true),
  AttentionLayer: layer,
};
