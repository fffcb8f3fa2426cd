import { type NdArray, ndarray } from '../../src/array/index.js';
import { camelCase } from '../../src/io/index.js';
import { UViT, type UViTOptions } from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, concat, gradients, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const renames: readonly (readonly [RegExp, string])[] = [
  [/attn\.proj\./, 'attn.to_out.0.'],
  [/mlp\.fc1\./, 'mlp.net.0.proj.'],
  [/mlp\.fc2\./, 'mlp.net.2.'],
  [/time_embed\.0\./, 'time_embed.linear_1.'],
  [/time_embed\.2\./, 'time_embed.linear_2.'],
];
const ours = (name: string): string => renames.reduce((s, [pattern, to]) => s.replace(pattern, to), name);
/** One array there is three here. */
const projections = (name: string): string[] | undefined =>
  name.includes('attn.qkv.') ? ['to_q', 'to_k', 'to_v'].map((part) => name.replace('qkv', part)) : undefined;

function third(array: NdArray, i: number): NdArray {
  const size = array.data.length / 3;
  const shape = [array.shape[0] / 3, ...array.shape.slice(1)];
  return ndarray((array.data as Float32Array<ArrayBuffer>).slice(i * size, (i + 1) * size), shape);
}

async function uvit(reference: ReferenceCase): Promise<Outputs> {
  const config = Object.fromEntries(Object.entries(reference.config).map(([key, value]) => [camelCase(key), value]));
  const model = new UViT(config as UViTOptions, new Generator(0));
  const state = new Map<string, NdArray>();
  for (const [name, array] of reference.weights) {
    const parts = projections(name);
    if (parts) for (const [i, part] of parts.entries()) state.set(part, third(array, i));
    else state.set(ours(name), array);
  }
  model.loadStateDict(state);
  const variables = model.namedVariables();
  const wanted = [...reference.tensors.keys()].filter((name) => name.startsWith('grad.')).map((name) => name.slice(5));
  const weight = wanted.length > 0 ? [reference.given('loss_weight.0')] : [];
  const run = compile((x: Tensor, t: Tensor, y: readonly Tensor[], w: readonly Tensor[]): Record<string, Tensor> => {
    const out = model.forward(x, t, y[0]);
    if (w.length === 0) return { out };
    const loss = out.mul(w[0]).sum();
    const names = wanted.flatMap((name) => projections(name) ?? [ours(name)]);
    const slopes = gradients(
      loss,
      names.map((name) => variables.get(name)!),
    );
    const slopeOf = (name: string): Tensor => slopes[names.indexOf(name)];
    const grads = wanted.map((name) => {
      const parts = projections(name);
      return [`grad.${name}`, parts ? concat(parts.map(slopeOf), 0) : slopeOf(ours(name))] as const;
    });
    return { out, 'out.loss': loss, ...Object.fromEntries(grads) };
  });
  const labels = reference.optionalInput('y');
  return run(reference.input('x'), reference.input('timesteps'), labels ? [labels] : [], weight);
}

export const adapters: Readonly<Record<string, Adapter>> = { UViT: uvit };
