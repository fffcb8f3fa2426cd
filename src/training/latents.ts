import type { NdArray } from '../array/index.js';
import { type Dataset, readBatch } from '../data/index.js';
import type { AutoencoderKL } from '../models/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';

export interface LatentOptions {
  /** What the latents are drawn from; default 0. */
  readonly seed?: number;
  /** Pictures encoded at a time; default 16. */
  readonly batch?: number;
  readonly compile?: CompileOptions;
  readonly signal?: AbortSignal;
}

/**
 * A data set's pictures as latents of an autoencoder, scaled to about unit variance: what a latent diffusion model
 * (Rombach et al. 2022) is trained on. Each is drawn once from the distribution that the encoder gives, and kept in memory.
 * @throws RangeError when the autoencoder does not fit the pictures; AbortError when the signal fires.
 */
export async function latentDataset(
  dataset: Dataset,
  vae: AutoencoderKL,
  { seed = 0, batch = 16, compile: how, signal }: LatentOptions = {},
): Promise<Dataset> {
  const shape = latentShape(dataset, vae);
  const size = shape.reduce((a, b) => a * b);
  const all = new Float32Array(dataset.length * size);
  const rng = new Generator(seed);
  const encode = compile((images: Tensor, noise: Tensor) => vae.scaleLatents(vae.encode(images).sample(noise)), {
    freeze: true,
    ...how,
  });
  try {
    for (let from = 0; from < dataset.length; from += batch) {
      signal?.throwIfAborted();
      const count = Math.min(batch, dataset.length - from);
      // The last batch is filled up with its last picture, so that one graph does for all.
      const indices = Int32Array.from({ length: batch }, (_, i) => Math.min(from + i, dataset.length - 1));
      const { images } = await readBatch(dataset, indices);
      const latents = (await encode(images, rng.randn([batch, ...shape]))) as NdArray<'float32'>;
      all.set(latents.data.subarray(0, count * size), from * size);
    }
  } finally {
    await encode.release();
  }
  return {
    name: dataset.name,
    length: dataset.length,
    shape,
    classNames: dataset.classNames,
    fill: (i, out, offset) => out.set(all.subarray(i * size, (i + 1) * size), offset),
    label: (i) => dataset.label(i),
  };
}

/** [channels, height, width] of a data set's latents. @throws RangeError when the autoencoder does not fit the pictures. */
export function latentShape(
  { name, shape: [channels, height, width] }: Pick<Dataset, 'name' | 'shape'>,
  { config, downsampling }: AutoencoderKL,
): [number, number, number] {
  if (channels !== config.inChannels)
    throw new RangeError(`${name}: pictures of ${channels} channels, the autoencoder takes ${config.inChannels}`);
  if (height % downsampling || width % downsampling)
    throw new RangeError(`${name}: pictures of ${height}x${width}, the autoencoder takes multiples of ${downsampling}`);
  return [config.latentChannels, height / downsampling, width / downsampling];
}
