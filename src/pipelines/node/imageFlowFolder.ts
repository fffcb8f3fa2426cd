import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { NdArray } from '../../array/index.js';
import { fileError, pathExists, readJson, readSafetensors, writeJson, writeSafetensors } from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { ImageFlow, type ImageFlowConfig, imageFlowConfig } from '../imageFlow.js';

const weightsFile = 'model.safetensors';

/** Writes config.json and model.safetensors. @param weights all variables of the model, by name; default its own. */
export async function saveImageFlow(
  folder: string,
  flow: ImageFlow,
  weights?: ReadonlyMap<string, NdArray>,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, weightsFile), weights ?? (await flow.model.readStateDict()));
  await writeJson(join(folder, 'config.json'), flow.config);
}

/**
 * Opens what {@link saveImageFlow} wrote.
 * @param solverSteps of FFJORD, in place of its own.
 * @throws Error that names the file at fault, or says that the folder holds no flow; RangeError for solver steps of a
 * flow that solves nothing.
 */
export async function loadImageFlow(folder: string, solverSteps?: number): Promise<ImageFlow> {
  if (!(await pathExists(folder)))
    throw new Error(`${folder}: no flow here (a run of nice, realnvp, maf, glow or ffjord has this folder)`);
  const stored = await readJson<ImageFlowConfig>(join(folder, 'config.json'), imageFlowConfig);
  if (solverSteps !== undefined && stored.model !== 'ffjord')
    throw new RangeError(`${folder}: solver steps are of ffjord, got ${stored.model}`);
  const steps = solverSteps === undefined ? {} : { steps: solverSteps };
  const { tensors } = await readSafetensors(join(folder, weightsFile));
  try {
    const flow = new ImageFlow({ ...stored, modelConfig: { ...stored.modelConfig, ...steps } }, new Generator(0));
    flow.model.loadStateDict(tensors);
    return flow;
  } catch (cause) {
    throw fileError('read', folder, cause);
  }
}
