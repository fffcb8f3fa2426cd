import { join } from 'node:path';
import {
  fileError,
  readJson,
  readSafetensors,
  writeFolderAtomic,
  writeJson,
  writeSafetensors,
} from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { classifierConfig, ImageClassifier } from '../classifier.js';
import { configFromJson, configToJson } from '../config.js';
import { VggClassifier } from '../vggClassifier.js';

const weightsFile = 'model.safetensors';

/** Writes config.json, model.safetensors and, as training.json, how the classifier was made. */
export const saveClassifier = (
  folder: string,
  classifier: ImageClassifier | VggClassifier,
  training: object,
): Promise<void> =>
  writeFolderAtomic(folder, async (aside) => {
    const { className } = classifier instanceof VggClassifier ? VggClassifier : ImageClassifier;
    const { _diffusers_version: _, ...config } = configToJson(className, classifier.config);
    await writeJson(join(aside, 'config.json'), config);
    await writeJson(join(aside, 'training.json'), training);
    await writeSafetensors(join(aside, weightsFile), await classifier.readStateDict());
  });

/** Opens an {@link ImageClassifier} that {@link saveClassifier} wrote. @throws Error that names the file at fault. */
export async function loadClassifier(folder: string): Promise<ImageClassifier> {
  const config = await readJson(join(folder, 'config.json'));
  const { tensors } = await readSafetensors(join(folder, weightsFile));
  try {
    const classifier = new ImageClassifier(
      configFromJson(ImageClassifier.className, classifierConfig, config),
      new Generator(0),
    );
    classifier.loadStateDict(tensors);
    return classifier;
  } catch (cause) {
    throw fileError('read', folder, cause);
  }
}
