import { z } from 'zod';
import { type NdArray, ndarray } from '../array/index.js';
import { type Dataset, readBatch } from '../data/index.js';
import { autoregressiveNames, type ImageDistribution } from '../models/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, rand, type Tensor } from '../tensor/index.js';
import { learningFields, pictureFields } from './config.js';
import type { Learner } from './step.js';

/** Everything that determines the training of an autoregressive model: its run.json, and what `noisewright train-autoregressive` takes. */
export const autoregressiveTraining = z.strictObject({
  kind: z.literal('autoregressive').default('autoregressive'),
  model: z.enum(autoregressiveNames),
  /** Fields of the model's config in camelCase. */
  modelConfig: z.record(z.string(), z.unknown()).default({}),
  /** Models p(x, y) of pictures and their classes in place of p(x). */
  labels: z.boolean().default(false),
  /** Test pictures whose likelihood is measured at each checkpoint, from the first on; 0 for none. */
  testImages: z.number().int().min(0).default(1000),
  ...pictureFields,
  ...learningFields,
  learningRate: z.number().positive().default(1e-3),
  weightDecay: z.number().min(0).default(0),
});
export type AutoregressiveTraining = z.output<typeof autoregressiveTraining>;
export type AutoregressiveTrainingOptions = z.input<typeof autoregressiveTraining>;

/**
 * Maximum likelihood of pictures in [-1, 1], each pixel drawn 0 or 1 anew as often as its brightness says (dynamic
 * binarisation, Burda et al. 2016). The loss is the mean of -log p in nats.
 */
export function autoregressiveLearner(distribution: ImageDistribution, rng: Generator): Learner {
  return {
    parameters: distribution.model.namedParameters(),
    prepare: ({ images, labels }) => ({
      x: rand(images.shape, rng).less(images.add(1).mul(0.5)).cast('float32'),
      labels,
    }),
    loss: ({ x, labels }) => distribution.logLikelihood(x, labels).mean().neg(),
  };
}

/** The pictures at these places, binarised as `rng` draws: [N, C, H, W] of 0 and 1, and their classes. */
export async function binaryPictures(
  dataset: Dataset,
  indices: Int32Array,
  rng: Generator,
): Promise<{ images: NdArray<'float32'>; labels: NdArray<'int32'> }> {
  const { images, labels } = await readBatch(dataset, indices);
  const draws = rng.rand([images.data.length]).data;
  return {
    images: ndarray(
      images.data.map((x, i) => Number(draws[i] < (x + 1) / 2)),
      images.shape,
    ),
    labels,
  };
}

export interface ImageLikelihoodReport {
  readonly images: number;
  /** Mean log p(x), in nats. */
  readonly logLikelihood: number;
  /** Of a joint model: mean log p(x, y) of pictures and their labels. */
  readonly jointLogLikelihood?: number;
  /** Of a joint model: how often the label of largest p(y | x) is the right one. */
  readonly accuracy?: number;
}

/**
 * Exact likelihood of a data set's first pictures, binarised once (the same ones at each call). A joint model is asked
 * about every label: p(x) is their sum, and the likeliest is its answer as a classifier.
 * @throws AbortError.
 */
export async function imageLikelihood(
  distribution: ImageDistribution,
  dataset: Dataset,
  { count, seed = 0, signal, compile: how }: ImageLikelihoodOptions,
): Promise<ImageLikelihoodReport> {
  const { classes } = distribution.config;
  const ask = compile((x: Tensor, y: Tensor) => distribution.logLikelihood(x, y), { freeze: true, ...how });
  const rng = new Generator(seed);
  const total = Math.min(count, dataset.length);
  let [sum, joint, right] = [0, 0, 0];
  try {
    for (let begin = 0; begin < total; begin += LIKELIHOOD_BATCH) {
      const indices = Int32Array.from({ length: Math.min(LIKELIHOOD_BATCH, total - begin) }, (_, i) => begin + i);
      const { images, labels } = await binaryPictures(dataset, indices, rng);
      const logs: ArrayLike<number>[] = []; // of each label, or of the pictures alone
      for (let y = 0; y < Math.max(1, classes); y++) {
        signal?.throwIfAborted();
        const label = ndarray(new Int32Array(indices.length).fill(y), [indices.length], 'int32');
        logs.push((await ask(images, label)).data as Float32Array);
      }
      for (let n = 0; n < indices.length; n++) {
        const each = logs.map((log) => log[n]);
        const most = Math.max(...each);
        sum += most + Math.log(each.reduce((p, log) => p + Math.exp(log - most), 0));
        if (classes === 0) continue;
        joint += each[Number(labels.data[n])];
        right += Number(each.indexOf(most) === Number(labels.data[n]));
      }
    }
  } finally {
    await ask.release();
  }
  const report = { images: total, logLikelihood: sum / total };
  return classes === 0 ? report : { ...report, jointLogLikelihood: joint / total, accuracy: right / total };
}

const LIKELIHOOD_BATCH = 50;

export interface ImageLikelihoodOptions {
  /** How many pictures. */
  readonly count: number;
  /** Of the binarisation. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
}
