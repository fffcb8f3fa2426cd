import { ndarray } from '../../src/array/index.js';
import { camelCase } from '../../src/io/index.js';
import { FlashTransformer, type FlashTransformerConfig } from '../../src/models/index.js';
import {
  FLASH,
  type FlashConfig,
  GAU,
  type GatedAttentionNorm,
  laplaceAttention,
  RelativePositionBias,
  type RelativePositionOptions,
  relativePositionBucket,
  reluSquared,
} from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import type { Adapter } from '../adapter.js';
import { moduleAdapter, runOnInputs } from './h_mixers.js';

const norms: Readonly<Record<string, GatedAttentionNorm>> = { LayerNorm: 'layer_norm', ScaleNorm: 'scale_norm' };

/** The source's arguments under our names. `rel_pos_bias` is one that it ignores. */
function optionsOf(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { norm_klass: norm = 'LayerNorm', rel_pos_bias: _, rotary_dim: rotary, ...rest } = config;
  const ours = Object.fromEntries(Object.entries(rest).map(([name, value]) => [camelCase(name), value]));
  return { ...ours, rotary, norm: norms[String(norm)] };
}

/** Layers in a Sequential with their activation; a transformer's layers share one table of rotary frequencies. */
function rename(name: string): string | undefined {
  if (/^layers\.[1-9]\d*\.rotary_pos_emb\./.test(name)) return undefined;
  return name
    .replace(/\b(to_hidden|to_qk|to_out)\.0\./, '$1.')
    .replace(/\b(qk_offset_scale|offsetscale)\b/, 'offset_scale')
    .replace(/^to_logits\.0\./, 'norm.')
    .replace(/^to_logits\.1\./, 'to_logits.');
}

const functions: Adapter = (reference) =>
  runOnInputs(reference, ({ x }) => ({ 'out.laplace': laplaceAttention(x), 'out.relu2': reluSquared(x) }));

const bias: Adapter = async (reference) => {
  const options = optionsOf(reference.config) as RelativePositionOptions;
  const [queries, keys] = Array.from(reference.input('shape').data as BigInt64Array, Number);
  const positions = Array.from({ length: queries * keys }, (_, i) =>
    relativePositionBucket((i % keys) - Math.floor(i / keys), options),
  );
  const run = moduleAdapter(
    () => new RelativePositionBias(options, new Generator(0)),
    (module) => module.forward(queries, keys),
  );
  return { ...(await run(reference)), 'out.buckets': ndarray(positions, [queries, keys], 'int64') };
};

export const adapters: Readonly<Record<string, Adapter>> = {
  LaplacianAttnFn: functions,
  T5RelativePositionBias: bias,
  GAU: moduleAdapter(
    ({ config }) => new GAU(optionsOf(config) as unknown as FlashConfig, new Generator(0)),
    (module, { x, mask, rel_pos_bias: relPosBias }) => module.forward(x, { mask, relPosBias }),
    rename,
  ),
  FLASH: moduleAdapter(
    ({ config }) => new FLASH(optionsOf(config) as unknown as FlashConfig, new Generator(0)),
    (module, { x, mask }) => module.forward(x, { mask }),
    rename,
  ),
  FLASHTransformer: moduleAdapter(
    ({ config }) => new FlashTransformer(optionsOf(config) as unknown as FlashTransformerConfig, new Generator(0)),
    (module, { ids, mask }) => module.forward(ids, { mask }),
    rename,
  ),
};
