import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { type NdArray, toFloat32, toHalf } from '../../array/index.js';
import {
  fileError,
  openSafetensors,
  pathExists,
  readJson,
  readSafetensors,
  recoverFolder,
  writeFolderAtomic,
  writeJson,
  writeSafetensors,
} from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import type { Denoiser } from '../denoiser.js';
import { type ConfigJson, modernConfig } from '../legacy.js';
import { classNameOf, denoiserClass, type ModelClass, modelClass, modelToJson, type StoredModel } from '../registry.js';

const weightsFiles = {
  diffusers: 'diffusion_pytorch_model.safetensors',
  transformers: 'model.safetensors',
  noisewright: 'diffusion_pytorch_model.safetensors',
} as const;
const weightsFileOf = ({ library = 'diffusers' }: ModelClass): string => weightsFiles[library];

/** Opens the folder of a denoiser: see {@link loadComponent}. */
export const loadModel = (folder: string): Promise<Denoiser> => open(folder, denoiserClass);

/**
 * Opens a model folder of diffusers (config.json and diffusion_pytorch_model.safetensors) or of transformers
 * (config.json and model.safetensors), in float32, float16 or bfloat16, whole or in parts with an index.
 * @param className what a pipeline's model_index.json calls the class; default: what config.json does.
 * @throws Error that names the file at fault: missing, cut short, of an unknown class, with an unknown or wrong config
 * field, or with weights that are missing, unexpected or of another shape.
 */
export const loadComponent = (folder: string, className?: string): Promise<StoredModel> =>
  open(folder, modelClass, className);

async function open<M extends StoredModel>(
  folder: string,
  find: (name: unknown) => ModelClass<M>,
  className?: string,
): Promise<M> {
  await recoverFolder(folder);
  const path = join(folder, 'config.json');
  const written = await readJson<ConfigJson | null>(path);
  const json = modernConfig(written);
  const [entry, model] = await naming(path, () => {
    const named = json === written ? className : undefined;
    const entry = find(named ?? json?._class_name ?? json?.architectures?.[0]);
    return [entry, entry.fromJson(json, new Blank())] as const;
  });
  const weights = await readWeights(folder, weightsFileOf(entry));
  await naming(folder, () => model.loadStateDict(withCurrentNames(weights)));
  return model;
}

export interface SaveModelOptions {
  /** Instead of the model's own, under the same names: an average, say. */
  readonly weights?: ReadonlyMap<string, NdArray>;
  /** Default float32. */
  readonly dtype?: 'float32' | 'float16' | 'bfloat16';
}

/**
 * Writes a model folder that from_pretrained of diffusers or transformers opens, replacing an older one as a whole.
 * @throws Error that names the folder, when weights are missing, unexpected, of another shape or not finite, or the
 * disk is full; then an older folder is left as it was.
 */
export async function saveModel(folder: string, model: StoredModel, options: SaveModelOptions = {}): Promise<void> {
  const { weights = await model.readStateDict(), dtype = 'float32' } = options;
  const state = new Map<string, NdArray>();
  for (const [name, { shape }] of model.namedVariables()) {
    const array = weights.get(name);
    if (!array) throw new Error(`${folder}: no weights for ${name}`);
    if (`${array.shape}` !== `${shape}`)
      throw new RangeError(`${folder}: ${name} is [${array.shape}], expected [${shape}]`);
    state.set(name, converted(array, dtype));
    if (!allFinite(state.get(name)!))
      throw new RangeError(`${folder}: ${name} has values that are not finite in ${dtype}`);
  }
  for (const name of weights.keys()) if (!state.has(name)) throw new Error(`${folder}: unexpected weights ${name}`);
  await writeFolderAtomic(folder, async (aside) => {
    await writeJson(join(aside, 'config.json'), modelToJson(model));
    await writeSafetensors(join(aside, weightsFileOf(modelClass(classNameOf(model)))), state, { format: 'pt' });
  });
}

/** Zeros where numbers are drawn, for models whose weights are about to be read. */
export class Blank extends Generator {
  override fillUniform<T extends Float32Array | Float64Array>(out: T): T {
    return out;
  }
  override fillNormal<T extends Float32Array | Float64Array>(out: T): T {
    return out;
  }
}

const shardIndex = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/** Larger files stay where they are, for the engine to map: opening gigabytes takes no copy. */
const READ_BYTES = 64 * 2 ** 20;

async function readOrOpen(path: string): Promise<Map<string, NdArray>> {
  const { size } = await stat(path).catch((cause) => {
    throw fileError('read', path, cause);
  });
  return (await (size > READ_BYTES ? openSafetensors : readSafetensors)(path)).tensors;
}

async function readWeights(folder: string, weightsFile: string): Promise<Map<string, NdArray>> {
  const half = weightsFile.replace(/\.safetensors$/, '.fp16.safetensors');
  const found = async (names: readonly string[]) => {
    for (const name of names) if (await pathExists(join(folder, name))) return join(folder, name);
    return undefined;
  };
  const path = await found([`${weightsFile}.index.json`, `${weightsFile}.index.fp16.json`]);
  const whole = (await found([weightsFile])) ?? (path ? undefined : await found([half]));
  if (whole) return readOrOpen(whole);
  if (!path) {
    const pickle = await found(['diffusion_pytorch_model.bin', 'pytorch_model.bin']);
    if (!pickle) return readOrOpen(join(folder, weightsFile));
    const advice = 'save it in Python as safetensors: model.save_pretrained(folder, safe_serialization=True)';
    throw fileError('read', pickle, new Error(`a pickle can run any code when it is opened, so it is not; ${advice}`));
  }
  const { weight_map: places } = await readJson(path, shardIndex);
  const weights = new Map<string, NdArray>();
  for (const file of new Set(Object.values(places))) {
    if (file !== basename(file)) throw fileError('read', path, new Error(`'${file}' is no file name`));
    const tensors = await readOrOpen(join(folder, file));
    for (const [name, array] of tensors) if (places[name] === file) weights.set(name, array);
  }
  const lost = Object.entries(places).find(([name]) => !weights.has(name));
  if (lost) throw fileError('read', path, new Error(`${lost[0]} is not in ${lost[1]}`));
  return weights;
}

/**
 * The attention of UNets written before diffusers 0.15 had other names, which hub models still have; text and image
 * encoders written before transformers 4.31 held the numbers 0, 1, 2 ... of their positions.
 */
const oldNames: Readonly<Record<string, string>> = { query: 'to_q', key: 'to_k', value: 'to_v', proj_attn: 'to_out.0' };
const withCurrentNames = (weights: ReadonlyMap<string, NdArray>): Map<string, NdArray> =>
  new Map(
    [...weights]
      .filter(([name]) => !/\bembeddings\.position_ids$/.test(name))
      .map(([name, array]) => [
        name.replace(/(?<=\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)/, (old) => oldNames[old]),
        array,
      ]),
  );

const converted = (array: NdArray, dtype: 'float32' | 'float16' | 'bfloat16'): NdArray =>
  dtype === array.dtype ? array : dtype === 'float32' ? toFloat32(array) : toHalf(toFloat32(array), dtype);

function allFinite(array: NdArray): boolean {
  const { data } = array.dtype === 'float32' ? array : toFloat32(array);
  for (let i = 0; i < data.length; i++) if (!Number.isFinite(data[i])) return false;
  return true;
}

async function naming<T>(path: string, work: () => T): Promise<T> {
  try {
    return work();
  } catch (cause) {
    throw fileError('read', path, cause);
  }
}
