import type { Denoiser } from '../models/index.js';
import { concat, split, type Tensor } from '../tensor/index.js';

/** Pixels of one part, measured for models of tokens and of images (docs/performance.md). */
const TOKEN_PIXELS = 8 * 28 * 28;
const IMAGE_PIXELS = 32 * 28 * 28;
const MOST_PARTS = 8;

/**
 * The model's prediction for a whole batch, computed part by part inside the graph: the same numbers, from
 * activations that fit the caches and a fraction of the memory (docs/performance.md).
 */
export function predict(model: Denoiser, x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
  const [n, , height, width] = x.shape;
  const pixels = 'patchSize' in model.config ? TOKEN_PIXELS : IMAGE_PIXELS;
  const parts = divisorOf(n, Math.min(MOST_PARTS, Math.ceil((n * height * width) / pixels)));
  const [xs, timesteps] = [split(x, parts), split(timestep, parts)];
  const labels = classLabels && split(classLabels, parts);
  return concat(xs.map((part, i) => model.forward(part, timesteps[i], labels?.[i])));
}

/** The largest divisor of n up to a limit: parts of equal size. */
function divisorOf(n: number, limit: number): number {
  for (let d = Math.min(n, limit); d > 1; d--) if (n % d === 0) return d;
  return 1;
}
