import { z } from 'zod';
import { MambaLm } from '../../src/models/index.js';
import { Mamba, type MambaConfig, selectiveScan } from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import type { Adapter } from '../adapter.js';
import { type Inputs, moduleAdapter, runOnInputs } from './h_mixers.js';

const rank = z.union([z.number(), z.literal('auto')]).optional();
const numberOrAuto = (value: number | 'auto' | undefined): number | undefined => (value === 'auto' ? undefined : value);

const minimalConfig = z
  .object({
    d_model: z.number(),
    n_layer: z.number(),
    vocab_size: z.number(),
    d_state: z.number().optional(),
    expand: z.number().optional(),
    dt_rank: rank,
    d_conv: z.number().optional(),
    pad_vocab_size_multiple: z.number().optional(),
    conv_bias: z.boolean().optional(),
    bias: z.boolean().optional(),
  })
  .transform((c) => ({
    dModel: c.d_model,
    nLayer: c.n_layer,
    vocabSize: c.vocab_size,
    dState: c.d_state,
    expand: c.expand,
    dtRank: numberOrAuto(c.dt_rank),
    dConv: c.d_conv,
    padVocabSizeMultiple: c.pad_vocab_size_multiple,
    convBias: c.conv_bias,
    bias: c.bias,
  }));

const transformersConfig = z
  .object({
    hidden_size: z.number(),
    state_size: z.number().optional(),
    conv_kernel: z.number().optional(),
    expand: z.number().optional(),
    time_step_rank: rank,
    use_bias: z.boolean().optional(),
    use_conv_bias: z.boolean().optional(),
    hidden_act: z.literal('silu').optional(),
  })
  .transform(
    (c): MambaConfig => ({
      dModel: c.hidden_size,
      dState: c.state_size,
      expand: c.expand,
      dtRank: numberOrAuto(c.time_step_rank),
      dConv: c.conv_kernel,
      convBias: c.use_conv_bias,
      bias: c.use_bias,
    }),
  );

const rename = (name: string): string | undefined =>
  name === 'lm_head.weight' ? undefined : name.replace(/\bA_log$/, 'a_log').replace(/\bD$/, 'd');

const block = (module: Mamba, { x, ssm_u: u }: Inputs) => ({
  out: module.forward(x),
  ...(u && { 'out.ssm': module.ssm(u) }),
});

export const adapters: Readonly<Record<string, Adapter>> = {
  'MambaBlock.selective_scan': (reference) =>
    runOnInputs(reference, ({ u, delta, A: a, B: b, C: c, D: d }) => selectiveScan(u, { delta, a, b, c, d })),
  MambaBlock: moduleAdapter(({ config }) => new Mamba(minimalConfig.parse(config), new Generator(0)), block, rename),
  Mamba: moduleAdapter(
    ({ config }) => new MambaLm(minimalConfig.parse(config), new Generator(0)),
    (module, { input_ids: ids }) => ({ 'out.logits': module.forward(ids) }),
    rename,
  ),
  'MambaMixer.slow_forward': moduleAdapter(
    ({ config }) => new Mamba(transformersConfig.parse(config), new Generator(0)),
    (module, { hidden_states: x }) => module.forward(x),
    rename,
  ),
};
