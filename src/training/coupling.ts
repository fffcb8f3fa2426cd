import { type NdArray, ndarray } from '../array/index.js';
import type { Batch } from '../data/index.js';
import { exactCoupling } from '../diffusion/index.js';
import { Generator } from '../random/index.js';
import type { LearningBatch } from './learning.js';

/** How noise is matched with the images of a batch: as it comes, or by optimal transport within each class. */
export const couplings = ['random', 'ot'] as const;

export interface CouplingOptions {
  readonly coupling: (typeof couplings)[number];
  readonly seed: number;
}

/**
 * Batches as `noisyImageLearner` takes them. With `ot` each comes with its noise: drawn for the batch's place in the data
 * and the seed alone, so that a run that is continued draws the same, and matched by {@link coupledNoise}.
 */
export async function* learningBatches(
  batches: AsyncIterable<Batch>,
  { coupling, seed }: CouplingOptions,
): AsyncGenerator<LearningBatch, void, undefined> {
  for await (const { images, labels, next } of batches) {
    if (coupling === 'random') {
      yield { arrays: { images, labels }, next };
      continue;
    }
    const place = Math.imul(next.epoch + 1, 0x85ebca6b) ^ Math.imul(next.index, 0xc2b2ae35);
    const rng = new Generator((Math.imul(seed, 0x9e3779b1) ^ place) >>> 0);
    const noise = coupledNoise(rng.randn(images.shape), images, labels.data);
    yield { arrays: { images, labels, noise }, next };
  }
}

/**
 * Noise in the order of the images that it goes with: the pairs of least total squared distance (Tong et al. 2024) among
 * those of the same class. Across classes, as torchcfm matches them, a class would be trained on noise that is near to its
 * images, and sampled from all noise (Cheng & Schwing 2025).
 * @param noise and @param images [N, ...]. @param labels [N].
 */
export function coupledNoise(
  noise: NdArray<'float32'>,
  images: NdArray<'float32'>,
  labels: ArrayLike<number>,
): NdArray<'float32'> {
  const size = images.data.length / images.shape[0];
  const coupled = new Float32Array(images.data.length);
  const row = ({ data }: NdArray<'float32'>, i: number) => data.subarray(i * size, (i + 1) * size);
  const rows = (array: NdArray<'float32'>, which: readonly number[]): NdArray<'float32'> => {
    const taken = new Float32Array(which.length * size);
    for (const [k, i] of which.entries()) taken.set(row(array, i), k * size);
    return ndarray(taken, [which.length, size]);
  };
  for (const label of new Set(Array.from(labels))) {
    const members = Array.from(labels, (own, i) => (own === label ? i : -1)).filter((i) => i >= 0);
    const image = exactCoupling(rows(noise, members), rows(images, members));
    for (const [k, i] of members.entries()) coupled.set(row(noise, i), members[image[k]] * size);
  }
  return ndarray(coupled, images.shape);
}
