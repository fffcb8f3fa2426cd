import { type NdArray, ndarray } from '../../src/array/index.js';
import { camelCase } from '../../src/io/index.js';
import {
  type Conditions,
  type ControlNet,
  modelClass,
  type UNet2DCondition,
  type UNet2DConditions,
} from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

type Given = Readonly<Record<string, NdArray | readonly NdArray[]>>;

/** A case's time: stored, or a number of its call. */
function timestep(reference: ReferenceCase): NdArray {
  const { scalar_inputs: scalars } = reference.description as { scalar_inputs?: { timestep?: number } };
  const t = scalars?.timestep ?? 0;
  return reference.optionalInput('timestep') ?? ndarray([t], [], Number.isInteger(t) ? 'int64' : 'float32');
}

/** Every other input under our name; `residuals.0`, `residuals.1` ... as a list. */
function conditions(reference: ReferenceCase, ...except: readonly string[]): Given {
  const given: Record<string, NdArray | readonly NdArray[]> = {};
  for (const name of reference.inputNames()) {
    const [, key, index] = /^(?:added_cond_kwargs\.)?(\w+?)(?:\.(\d+))?$/.exec(name) ?? [];
    if (!key || except.includes(key)) continue;
    const ours = camelCase(key);
    const value = reference.input(name);
    const list = [...((given[ours] ?? []) as readonly NdArray[])];
    if (index !== undefined) list[Number(index)] = value;
    given[ours] = index === undefined ? value : list;
  }
  return given;
}

async function unet(reference: ReferenceCase): Promise<Outputs> {
  const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0)) as UNet2DCondition;
  model.loadStateDict(reference.weights);
  const predict = compile((x: Tensor, t: Tensor, given: UNet2DConditions) => model.forward(x, t, given));
  const sample = await predict(
    reference.input('sample'),
    timestep(reference),
    conditions(reference, 'sample', 'timestep'),
  );
  await predict.release();
  return { 'out.sample': sample };
}

async function controlNet(reference: ReferenceCase): Promise<Outputs> {
  const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0)) as ControlNet;
  model.loadStateDict(reference.weights);
  const { call_kwargs: call = {}, scalar_inputs: scalars = {} } = reference.description as Record<
    'call_kwargs' | 'scalar_inputs',
    { conditioning_scale?: number; guess_mode?: boolean } | undefined
  >;
  const { conditioning_scale: conditioningScale, guess_mode: guess } = { ...scalars, ...call };
  const speak = compile((x: Tensor, t: Tensor, hint: Tensor, given: Conditions) => {
    const { down, mid } = model.forward(x, t, hint, given, { conditioningScale, guess });
    return { ...Object.fromEntries(down.map((residual, i) => [`out.down.${i}`, residual])), 'out.mid': mid };
  });
  const outputs = await speak(
    reference.input('sample'),
    timestep(reference),
    reference.input('controlnet_cond'),
    conditions(reference, 'sample', 'timestep', 'controlnet_cond'),
  );
  await speak.release();
  return outputs;
}

export const adapters: Readonly<Record<string, Adapter>> = { UNet2DConditionModel: unet, ControlNetModel: controlNet };
