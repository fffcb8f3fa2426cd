import { join } from 'node:path';
import { z } from 'zod';
import { readBytes, readJson } from '../../io/node/index.js';
import { type Denoiser, EncoderUNet } from '../../models/index.js';
import { loadComponent } from '../../models/node/index.js';
import { type Sampler, samplerFromConfig } from '../../samplers/index.js';

const modelIndex = z.looseObject({
  classifier: z.tuple([z.string(), z.string()]),
  id2label: z.record(z.string().regex(/^\d+$/), z.string()).default({}),
});

/** A classifier of noisy images and the noise that it knows. */
export interface StoredNoisyClassifier {
  readonly classifier: EncoderUNet;
  /** Of scheduler/scheduler_config.json: how x_t was noised in training. */
  readonly noise: Sampler;
  readonly classNames: readonly string[];
}

/**
 * Opens the run of a classifier of noisy images: model_index.json, classifier/ and scheduler/.
 * @throws Error that names the file or field at fault.
 */
export async function loadNoisyClassifier(folder: string): Promise<StoredNoisyClassifier> {
  const { id2label } = await readJson(join(folder, 'model_index.json'), modelIndex).catch((cause) => {
    throw new Error(`${(cause as Error).message}; expected a run of train --model noisy-classifier`, { cause });
  });
  const noise = await readBytes(join(folder, 'scheduler', 'scheduler_config.json'));
  const classifier = await loadComponent(join(folder, 'classifier'), EncoderUNet.className);
  return {
    classifier: classifier as EncoderUNet,
    noise: samplerFromConfig(new TextDecoder().decode(noise)),
    classNames: Object.keys(id2label)
      .sort((a, b) => Number(a) - Number(b))
      .map((label) => id2label[label]),
  };
}

/**
 * Whether a classifier can guide a model with a sampler.
 * @throws RangeError when their images, classes or noise differ: what each has, and what to do.
 */
export function checkGuides(
  { classifier, noise }: Omit<StoredNoisyClassifier, 'classNames'>,
  model: Denoiser,
  sampler: Sampler,
): void {
  const shape = [model.inChannels, model.sampleSize, model.sampleSize];
  if (`${classifier.imageShape}` !== `${shape}`)
    throw new RangeError(`the classifier is for images [${classifier.imageShape}], the model makes [${shape}]`);
  if (model.nullClass !== undefined && model.nullClass !== classifier.numClasses)
    throw new RangeError(`the classifier knows ${classifier.numClasses} classes, the model ${model.nullClass}`);
  const last = Number(noise.config.numTrainTimesteps ?? 1000) - 1;
  const times = [0, 1, 2, 3, 4].map((i) => Math.round((i * last) / 4));
  if (times.some((t) => !(Math.abs(noiseAt(noise, t) - noiseAt(sampler, t)) < 1e-3)))
    throw new RangeError(
      `the classifier was trained on other noise (${described(noise)}) than ${sampler.className} makes (${described(sampler)}): train one with the model's --predict and --beta-schedule`,
    );
}

/** The share of noise in x at a timestep. */
function noiseAt(sampler: Sampler, timestep: number): number {
  const { alpha, sigma } = sampler.marginal(timestep);
  return sigma / Math.hypot(alpha, sigma);
}

const described = ({ className, config }: Sampler): string =>
  [className, config.betaSchedule, config.numTrainTimesteps].filter((part) => part !== undefined).join(', ');
