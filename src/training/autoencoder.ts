import { z } from 'zod';
import type { NdArray } from '../array/index.js';
import { type Dataset, readBatch } from '../data/index.js';
import type { AutoencoderKL, AutoencoderKLOptions } from '../models/index.js';
import type { Generator } from '../random/index.js';
import { type CompileOptions, compile, randn, type Tensor } from '../tensor/index.js';
import { learningFields, pictureFields } from './config.js';
import { type Activations, perceptualDistance } from './perceptual.js';
import type { Learner } from './step.js';

const stages = (blockOutChannels: number[], layersPerBlock: number, normNumGroups: number) => ({
  blockOutChannels,
  layersPerBlock,
  normNumGroups,
  downBlockTypes: blockOutChannels.map(() => 'DownEncoderBlock2D' as const),
  upBlockTypes: blockOutChannels.map(() => 'UpDecoderBlock2D' as const),
});

/** Autoencoders by size: `xs` and `s` make latents of a quarter of the side, `sd` is Stable Diffusion's (an eighth). */
export const autoencoderPresets = {
  tiny: stages([8, 8], 1, 4),
  xs: stages([16, 32, 64], 1, 8),
  s: stages([32, 64, 128], 1, 16),
  sd: stages([128, 256, 512, 512], 2, 32),
} satisfies Record<string, AutoencoderKLOptions>;

/** Everything that determines the training of an autoencoder: its run.json, and what `noisewright train-vae` takes. */
export const autoencoderTraining = z.strictObject({
  kind: z.literal('autoencoder').default('autoencoder'),
  /** Fields of AutoencoderKL's config in camelCase; channels and size are filled in from the data. */
  modelConfig: z.record(z.string(), z.unknown()).default({}),
  /** Of the divergence from a standard normal, a sum over a picture's latents, beside the mean square error. */
  klWeight: z.number().min(0).default(1e-6),
  /** A network that pictures are also compared by: VGG-19's file or a classifier's folder, see `openActivations`. */
  perceptual: z.string().optional(),
  /** Of the distance that it sees. */
  perceptualWeight: z.number().positive().default(0.1),
  ...pictureFields,
  ...learningFields,
  size: z.number().int().positive().default(32),
  batch: z.number().int().positive().default(16),
  learningRate: z.number().positive().default(1e-3),
  clipNorm: z.number().positive().default(1),
  weightDecay: z.number().min(0).default(0),
});
export type AutoencoderTraining = z.output<typeof autoencoderTraining>;
export type AutoencoderTrainingOptions = z.input<typeof autoencoderTraining>;

export interface AutoencoderLearning {
  readonly klWeight: number;
  readonly activations?: Activations;
  /** Default 0.1. */
  readonly perceptualWeight?: number;
  readonly rng: Generator;
}

/**
 * Reconstruction and regularisation (Kingma & Welling 2014, Rombach et al. 2022 without its discriminator): mean square
 * error of pictures through drawn latents, plus `klWeight` times the divergence of the latents from a standard normal and,
 * with `activations`, `perceptualWeight` times the {@link perceptualDistance}.
 */
export function autoencoderLearner(
  vae: AutoencoderKL,
  { klWeight, activations, perceptualWeight = 0.1, rng }: AutoencoderLearning,
): Learner {
  const { latentChannels } = vae.config;
  return {
    parameters: vae.namedParameters(),
    prepare({ images }) {
      const [n, , height, width] = images.shape;
      const factor = vae.downsampling;
      return { images, noise: randn([n, latentChannels, height / factor, width / factor], rng) };
    },
    loss({ images, noise }) {
      const posterior = vae.encode(images);
      const again = vae.decode(posterior.sample(noise));
      const error = again.sub(images).square().mean().add(posterior.kl().mean().mul(klWeight));
      return activations ? error.add(perceptualDistance(again, images, activations).mul(perceptualWeight)) : error;
    },
  };
}

/** Pictures by which the latents' scale is measured. */
const MEASURED = 512;

/**
 * Deviation of an autoencoder's latents, drawn as a diffusion model is trained on them, over the first pictures of a data
 * set; its reciprocal is `scalingFactor`.
 */
export async function latentDeviation(vae: AutoencoderKL, dataset: Dataset, options?: CompileOptions): Promise<number> {
  const moments = compile(
    (x: Tensor) => {
      const { mean, variance } = vae.encode(x);
      return { sum: mean.sum(), squares: mean.square().add(variance).sum() };
    },
    { freeze: true, ...options },
  );
  let [count, sum, squares] = [0, 0, 0];
  const total = Math.min(MEASURED, dataset.length);
  for (let begin = 0; begin < total; begin += 16) {
    const indices = Int32Array.from({ length: Math.min(16, total - begin) }, (_, i) => begin + i);
    const { images } = await readBatch(dataset, indices);
    const answer = await moments(images as NdArray);
    const [, , height, width] = images.shape;
    count += (indices.length * vae.config.latentChannels * height * width) / vae.downsampling ** 2;
    sum += Number(answer.sum.data[0]);
    squares += Number(answer.squares.data[0]);
  }
  await moments.release();
  return Math.sqrt(squares / count - (sum / count) ** 2);
}
