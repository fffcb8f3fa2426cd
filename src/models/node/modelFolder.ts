import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { NdArray } from '../../array/index.js';
import {
  readJson,
  readSafetensors,
  recoverFolder,
  writeFolderAtomic,
  writeJson,
  writeSafetensors,
} from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { configToJson } from '../config.js';
import { type Denoiser, denoiserClass } from '../registry.js';

const WEIGHTS = 'diffusion_pytorch_model.safetensors';

/**
 * Opens a model folder of diffusers (config.json and its weights).
 * @throws Error that names the file or field at fault: a missing file, an unknown class or config value, weights that do not fit.
 */
export async function loadModel(folder: string): Promise<Denoiser> {
  await recoverFolder(folder);
  const json = await readJson<Record<string, unknown>>(join(folder, 'config.json'));
  // Initial weights are overwritten, so any seed will do.
  const model = denoiserClass(json?._class_name).fromJson(json, new Generator(0));
  const { tensors } = await readSafetensors(join(folder, WEIGHTS));
  model.loadStateDict(tensors);
  return model;
}

/** Writes a model folder that diffusers' from_pretrained opens. @param weights default: the model's own. */
export async function saveModel(
  folder: string,
  model: Denoiser,
  weights: ReadonlyMap<string, NdArray> = model.stateDict(),
): Promise<void> {
  const className = (model.constructor as unknown as { className: string }).className;
  await writeFolderAtomic(folder, async (aside) => {
    await mkdir(aside, { recursive: true });
    await writeJson(join(aside, 'config.json'), configToJson(className, model.config));
    await writeSafetensors(join(aside, WEIGHTS), weights, { format: 'pt' });
  });
}
