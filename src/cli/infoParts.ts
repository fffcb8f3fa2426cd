import { join } from 'node:path';
import { z } from 'zod';
import { pathExists, readJson, readSafetensors } from '../io/node/index.js';
import { classNameOf, loraLayers } from '../models/index.js';
import { loadComponent } from '../models/node/index.js';
import { isTextToImage, loraFile } from '../pipelines/node/index.js';

/** A network of a text-to-image system, or a LoRA. */
export interface Part {
  /** Its folder or file. */
  readonly name: string;
  readonly className: string;
  readonly parameters: number;
  readonly config: object;
}

const networks = ['unet', 'transformer', 'vae', 'text_encoder', 'text_encoder_2', 'controlnet'];

/**
 * What a text-to-image system, an autoencoder, a ControlNet or a LoRA is made of: a folder in diffusers' layout, that of
 * a run, or a LoRA's file. Weights are not read.
 * @returns undefined for another folder. @throws Error that names the file at fault.
 */
export async function partsOf(path: string): Promise<Part[] | undefined> {
  if (path.endsWith('.safetensors')) return [await loraPart(path)];
  if (await pathExists(join(path, loraFile))) return [await loraPart(join(path, loraFile))];
  if (await pathExists(join(path, 'model_index.json'))) {
    if (!(await isTextToImage(path))) return undefined;
  } else if (await pathExists(join(path, 'config.json'))) {
    return [await networkPart(path, path)];
  }
  const found: Part[] = [];
  for (const name of networks)
    if (await pathExists(join(path, name, 'config.json'))) found.push(await networkPart(name, join(path, name)));
  return found.length > 0 ? found : undefined;
}

async function networkPart(name: string, folder: string): Promise<Part> {
  const model = await loadComponent(folder);
  return { name, className: String(classNameOf(model)), parameters: model.parameterCount(), config: model.config };
}

async function loraPart(file: string): Promise<Part> {
  const layers = loraLayers((await readSafetensors(file)).tensors);
  const count = (key: string) => layers.filter(({ target }) => target === key).length;
  const targets = [...new Set(layers.map(({ target }) => target))];
  const ranks = [...new Set(layers.map(({ down }) => down.shape[0]))].sort((a, b) => a - b);
  const parameters = layers.reduce((sum, { down, up }) => sum + down.data.length + up.data.length, 0);
  const config = { layers: Object.fromEntries(targets.map((key) => [key, count(key)])), rank: ranks };
  return { name: file, className: 'LoRA', parameters, config };
}

const scheduler = z.looseObject({ _class_name: z.string(), prediction_type: z.string().optional() });

/** The class of a system's sampler and what its model predicts, if the folder says so. */
export async function schedulerOf(path: string): Promise<z.output<typeof scheduler> | undefined> {
  const file = join(path, 'scheduler', 'scheduler_config.json');
  return (await pathExists(file)) ? readJson(file, scheduler) : undefined;
}
