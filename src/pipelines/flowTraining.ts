import { z } from 'zod';
import { type NdArray, ndarray } from '../array/index.js';
import { type Dataset, readBatch } from '../data/index.js';
import { ActNorm, bitsPerDim, initializingActNorm } from '../models/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, rand, type Tensor } from '../tensor/index.js';
import { type Learner, learningFields, pictureFields } from '../training/index.js';
import { decodeFlow, encodeFlow } from './flows.js';
import { flowNames, type ImageFlow } from './imageFlow.js';

/** Everything that determines the training of a flow of images: its run.json, and what `noisewright train --model glow` takes. */
export const flowTraining = z.strictObject({
  kind: z.literal('flow').default('flow'),
  model: z.enum(flowNames),
  /** Fields of the flow's config in camelCase. */
  modelConfig: z.record(z.string(), z.unknown()).default({}),
  /** Test pictures whose likelihood is measured at each checkpoint, from the first on; 0 for none. */
  testImages: z.number().int().min(0).default(1000),
  ...pictureFields,
  ...learningFields,
  learningRate: z.number().positive().default(1e-3),
  weightDecay: z.number().min(0).default(0),
  clipNorm: z.number().positive().default(1),
  /** Of averaged weights that are kept for use; default: none, as the running statistics of batch norms are those of the last weights. */
  emaDecay: z.number().min(0).max(1).optional(),
});
export type FlowTrainingConfig = z.output<typeof flowTraining>;
export type FlowTrainingConfigOptions = z.input<typeof flowTraining>;

/** Pictures in -1..1, of 256 levels, as a continuum in 0..1. @param noise in [0, 1), as the pictures. */
const filled = (images: Tensor, noise: Tensor): Tensor => images.add(1).mul(127.5).round().add(noise).div(256);

/** Pictures [N, C, H, W] in -1..1 of a flow's continuum in 0..1: the levels it falls on. */
export const flowPictures = ({ data, shape }: NdArray<'float32'>): NdArray<'float32'> =>
  ndarray(
    data.map((x) => Math.min(255, Math.max(0, Math.floor(x * 256))) / 127.5 - 1),
    shape,
  );

/** A flow's x of pictures in -1..1: noise fills their levels. @param rng draws it. */
export function flowInput({ data, shape }: NdArray<'float32'>, rng: Generator): NdArray<'float32'> {
  const noise = rng.rand(shape).data;
  return ndarray(
    data.map((x, i) => (Math.round((x + 1) * 127.5) + noise[i]) / 256),
    shape,
  );
}

/**
 * Maximum likelihood of pictures in [-1, 1] whose 256 levels are filled with noise, anew at each step (uniform
 * dequantisation). The loss is the mean bits per dimension.
 */
export function flowLearner({ model }: ImageFlow, rng: Generator): Learner {
  return {
    parameters: model.namedParameters(),
    whole: true, // batch norms
    prepare: ({ images }) => ({ x: filled(images, rand(images.shape, rng)) }),
    loss: ({ x }) => bitsPerDim(model.logProb(x), x.size / x.shape[0]).mean(),
  };
}

/** Starts actnorms, where a flow has some, from a first batch of pictures [N, C, H, W] in [-1, 1]. */
export async function startFlow({ model }: ImageFlow, images: NdArray<'float32'>, options?: CompileOptions) {
  if (![...model.namedModules().values()].some((part) => part instanceof ActNorm)) return;
  const first = compile((x: Tensor) => initializingActNorm(() => model.logProb(x)), options);
  try {
    await first(flowInput(images, new Generator(0)));
  } finally {
    await first.release();
  }
}

export interface FlowLikelihoodReport {
  readonly images: number;
  /** Mean of -log₂ p(x) for each value, an upper bound of what the pixels themselves take. */
  readonly bitsPerDim: number;
  /** Mean log p(x) of the pixels in nats, bounded from below likewise. */
  readonly logLikelihood: number;
}

/** Pictures at a time. */
const likelihoodBatch = 50;

/**
 * Likelihood of a data set's first pictures, their levels filled with the same noise at each call.
 * @throws AbortError.
 */
export async function flowLikelihood(
  { model }: ImageFlow,
  dataset: Dataset,
  { count, seed = 0, signal, compile: how, onImages }: FlowLikelihoodOptions,
): Promise<FlowLikelihoodReport> {
  const ask = compile((x: Tensor) => bitsPerDim(model.logProb(x), x.size / x.shape[0]), { freeze: true, ...how });
  const rng = new Generator(seed);
  const total = Math.min(count, dataset.length);
  const [channels, height, width] = dataset.shape;
  let sum = 0;
  try {
    for (let begin = 0; begin < total; begin += likelihoodBatch) {
      signal?.throwIfAborted();
      const indices = Int32Array.from({ length: Math.min(likelihoodBatch, total - begin) }, (_, i) => begin + i);
      const { images } = await readBatch(dataset, indices);
      sum += ((await ask(flowInput(images, rng))).data as Float32Array).reduce((a, b) => a + b, 0);
      onImages?.(begin + indices.length);
    }
  } finally {
    await ask.release();
  }
  const bits = sum / total;
  return { images: total, bitsPerDim: bits, logLikelihood: -bits * channels * height * width * Math.LN2 };
}

export interface FlowLikelihoodOptions {
  /** How many pictures. */
  readonly count: number;
  /** Of the noise between levels. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
  /** @param done pictures so far. */
  readonly onImages?: (done: number) => void;
}

/**
 * How far pictures come back from where they were, through their latents and back.
 * @param images [N, C, H, W] in [-1, 1].
 * @returns the largest difference of a value, where 1 is from black to white, and the mean one.
 */
export async function inversionError(
  { model }: ImageFlow,
  images: NdArray<'float32'>,
  { seed = 0, compile: how, signal }: Pick<FlowLikelihoodOptions, 'seed' | 'compile' | 'signal'> = {},
): Promise<{ largest: number; mean: number }> {
  const x = flowInput(images, new Generator(seed));
  const z = await encodeFlow({ model, x, compile: how });
  const { data } = await decodeFlow({ model, z, compile: how, signal });
  const differences = data.map((value, i) => Math.abs(value - x.data[i]));
  const largest = differences.reduce((a, b) => Math.max(a, b), 0);
  return { largest, mean: differences.reduce((a, b) => a + b, 0) / data.length };
}
