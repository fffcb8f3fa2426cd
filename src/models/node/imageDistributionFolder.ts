import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { NdArray } from '../../array/index.js';
import { fileError, readJson, readSafetensors, writeJson, writeSafetensors } from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { ImageDistribution } from '../imageDistribution.js';

const weightsFile = 'model.safetensors';

/** Writes config.json and model.safetensors. @param weights all variables of the model, by name; default its own. */
export async function saveImageDistribution(
  folder: string,
  distribution: ImageDistribution,
  weights?: ReadonlyMap<string, NdArray>,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, weightsFile), weights ?? (await distribution.model.readStateDict()));
  await writeJson(join(folder, 'config.json'), distribution.toJson());
}

/** Opens what {@link saveImageDistribution} wrote. @throws Error that names the file at fault. */
export async function loadImageDistribution(folder: string): Promise<ImageDistribution> {
  const config = await readJson(join(folder, 'config.json'));
  const { tensors } = await readSafetensors(join(folder, weightsFile));
  try {
    const distribution = ImageDistribution.fromJson(config, new Generator(0));
    distribution.model.loadStateDict(tensors);
    return distribution;
  } catch (cause) {
    throw fileError('read', folder, cause);
  }
}
