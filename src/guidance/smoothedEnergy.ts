import { blurredQueries } from '../nn/index.js';
import type { Tensor } from '../tensor/index.js';
import { contrast } from './contrast.js';
import type { Guider, Schedule } from './guider.js';
import { type PerturbedOptions, perturbedBranch } from './pag.js';
import { blurred, separable } from './separable.js';

export interface SmoothedEnergyOptions extends PerturbedOptions {
  /** Of the blur, in tokens; default Infinity: every query becomes the mean one. */
  readonly sigma?: number;
}

/**
 * Smoothed-energy guidance (Hong 2024): ε(x, y) + s (ε(x, y) - ε̂(x, y)), where ε̂ asks with blurred queries in some
 * layers. 0 is off; convention 'standard' makes that 1.
 * diffusers 0.40 has the branches of its blur the wrong way round: there a large σ hardly blurs, a small one averages.
 * @throws RangeError for options that make no sense; for layers that a model lacks when it is used.
 */
export function smoothedEnergy(scale: Schedule, options: SmoothedEnergyOptions = {}): Guider {
  const { sigma = Number.POSITIVE_INFINITY, layers } = options;
  if (!(sigma > 0)) throw new RangeError(`smoothedEnergy: sigma must be positive, got ${sigma}`);
  const other = perturbedBranch(`queries blurred by ${sigma}`, 'attention', layers, (size) => ({
    attend: blurredQueries((queries) => blurTokens(queries, sigma, size)),
  }));
  return contrast(scale, options, { other, convention: 'paper' });
}

/** Blurs tokens [B, H, L, D] that are an image of this shape, row by row. @throws RangeError when they do not tile it. */
function blurTokens(tokens: Tensor, sigma: number, [height, width]: readonly [number, number]): Tensor {
  if (!Number.isFinite(sigma)) return tokens.mean(2, true).expand(tokens.shape);
  const [batch, heads, length, dim] = tokens.shape;
  const rows = Math.round(Math.sqrt((length * height) / width));
  const columns = length / rows;
  if (!Number.isInteger(columns))
    throw new RangeError(`smoothedEnergy: ${length} tokens are no grid over ${height}x${width} pixels`);
  const image = tokens.swapAxes(2, 3).reshape([batch, heads * dim, rows, columns]);
  const size = Math.ceil(6 * sigma);
  const blurry = gaussianBlur2d(image, size + 1 - (size % 2), sigma);
  return blurry.reshape([batch, heads, dim, length]).swapAxes(2, 3);
}

/**
 * Images [N, C, H, W] under a Gaussian; the border reflects. A kernel (odd) wider than the image is cut down to its
 * width, or one more when that is even, as in the paper's code.
 */
export function gaussianBlur2d(x: Tensor, kernelSize: number, sigma: number): Tensor {
  const [height, width] = x.shape.slice(2);
  const size = Math.min(kernelSize, width + 1 - (width % 2));
  const bell = Array.from({ length: size }, (_, i) => Math.exp(-0.5 * ((i - (size - 1) / 2) / sigma) ** 2));
  const sum = bell.reduce((a, b) => a + b);
  const kernel = bell.map((weight) => weight / sum);
  return separable(x, blurred(height, kernel), blurred(width, kernel));
}
