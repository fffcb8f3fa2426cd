import { ndarray } from '../array/index.js';
import { type Dataset, readBatch } from '../data/index.js';
import { addNoise, type Process } from '../diffusion/index.js';
import type { EncoderUNet } from '../models/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';
import { crossEntropy } from './classifier.js';
import type { TrainConfig } from './config.js';
import type { Objective } from './objective.js';

/**
 * The objective of a classifier that guides sampling (Dhariwal and Nichol 2021): cross entropy on x_t, noised as a
 * denoiser's objective does.
 */
export const noisyClassification = ({ predictionType, noisy }: Objective): Objective => ({
  predictionType,
  noisy(x0, rng, labels) {
    if (!labels) throw new TypeError('noisy classifier: needs the classes of the images');
    const { x, timestep } = noisy(x0, rng);
    return { x, timestep, target: labels };
  },
  loss: (logits, { target }) => crossEntropy(logits, target),
});

/** Fields of a run's config that only a denoiser has a use for. */
export const denoiserFields = [
  'vae',
  'learnVariance',
  'minSnrGamma',
  'flowWeighting',
  'path',
  'pathPower',
  'bridgeSigma',
  'coupling',
  'conditionDropout',
  'sampleEvery',
] as const;

/** @throws TypeError for settings of a run that a classifier of noisy images has no use for. */
export function checkClassifierConfig(config: TrainConfig): void {
  const { vae, learnVariance, minSnrGamma, flowWeighting, sampleEvery, path, coupling } = config;
  const odd = {
    vae,
    learnVariance,
    minSnrGamma,
    sampleEvery,
    flowWeighting: flowWeighting !== 'none' && flowWeighting,
    path: path !== 'cond-ot' && path,
    coupling: coupling !== 'random' && coupling,
  };
  for (const [field, value] of Object.entries(odd))
    if (value)
      throw new TypeError(`training: ${field} (${value}) is for denoisers, not for a classifier of noisy images`);
}

/** How often a classifier is right, by how noisy the pictures are. A type, so that metrics may hold it. */
export type AccuracyByNoise = {
  /** Over all timesteps alike. */
  readonly accuracy: number;
  /** Over each tenth of the timesteps, the least noisy first. */
  readonly accuracyByTimestep: readonly number[];
};

export interface AccuracyOptions {
  /** How many pictures to look at, each once; default all. */
  readonly count?: number;
  /** Of the choice of pictures and of the noise; default 0. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
}

const [tenths, batch] = [10, 250];

/**
 * Accuracy on noisy pictures x_t of a data set, with timesteps spread evenly over those of a process.
 * @throws AbortError when the signal fires.
 */
export async function accuracyByNoise(
  classifier: EncoderUNet,
  dataset: Dataset,
  process: Process,
  { count = dataset.length, seed = 0, signal, compile: how }: AccuracyOptions = {},
): Promise<AccuracyByNoise> {
  const rng = new Generator(seed);
  const chosen = rng.randperm(dataset.length).slice(0, count) as Int32Array<ArrayBuffer>;
  const timeOf = (i: number) => ((i + 0.5) / chosen.length) * process.numTrainTimesteps;
  const run = compile(
    (images: Tensor, noise: Tensor, timesteps: Tensor, labels: Tensor) =>
      classifier
        .forward(addNoise(images, noise, process.levels(timesteps)), timesteps)
        .argmax(1)
        .equal(labels.cast('int64')),
    { freeze: true, ...how },
  );
  const right = new Float64Array(tenths);
  const seen = new Float64Array(tenths);
  try {
    for (let at = 0; at < chosen.length; at += batch) {
      signal?.throwIfAborted();
      const { images } = await readBatch(dataset, chosen.slice(at, at + batch));
      const n = images.shape[0];
      const times = Array.from({ length: n }, (_, i) => timeOf(at + i));
      const timesteps = process.time === 'discrete' ? ndarray(times.map(Math.floor), [n], 'int64') : ndarray(times);
      const labels = Array.from({ length: n }, (_, i) => dataset.label(chosen[at + i]));
      const answers = await run(images, rng.randn(images.shape), timesteps, ndarray(labels, [n], 'int64'));
      for (let i = 0; i < n; i++) {
        const tenth = Math.floor(((at + i + 0.5) / chosen.length) * tenths);
        seen[tenth]++;
        right[tenth] += Number(answers.data[i]);
      }
    }
  } finally {
    await run.release();
  }
  const accuracyByTimestep = Array.from(right, (count, i) => count / Math.max(1, seen[i]));
  return { accuracy: right.reduce((a, b) => a + b) / chosen.length, accuracyByTimestep };
}
