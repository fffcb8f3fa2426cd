import { type NdArray, ndarray, type Shape, sizeOf } from '../array/index.js';
import { erf, erfinv } from './erf.js';
import type { Generator } from './generator.js';

/**
 * Inputs and outputs of one unit of a weight shaped [out, in, ...kernel], as torch.nn.init counts them.
 * @throws RangeError for fewer than two axes.
 */
export function fans(shape: Shape): { fanIn: number; fanOut: number } {
  if (shape.length < 2) throw new RangeError(`fans: a weight has at least 2 axes, this one [${shape}]`);
  const field = sizeOf(shape.slice(2));
  return { fanIn: shape[1] * field, fanOut: shape[0] * field };
}

/**
 * Uniform weights that keep the variance of activations through leaky rectifiers of slope `a` (He et al. 2015).
 * PyTorch's Linear and convolutions start from a = sqrt(5), which is a bound of 1/sqrt(fanIn): the default here.
 */
export function kaimingUniform(rng: Generator, shape: Shape, a = Math.sqrt(5)): NdArray<'float32'> {
  const gain = Math.sqrt(2 / (1 + a * a));
  const bound = Math.sqrt(3) * (gain / Math.sqrt(fans(shape).fanIn));
  return rng.uniform(shape, -bound, bound);
}

/** The bias that PyTorch's Linear and convolutions draw right after a weight of `weightShape`: [out]. */
export function biasUniform(rng: Generator, weightShape: Shape): NdArray<'float32'> {
  const bound = 1 / Math.sqrt(fans(weightShape).fanIn);
  return rng.uniform([weightShape[0]], -bound, bound);
}

/** Uniform weights that keep variance both ways through linear units (Glorot and Bengio 2010). */
export function xavierUniform(rng: Generator, shape: Shape, gain = 1): NdArray<'float32'> {
  const { fanIn, fanOut } = fans(shape);
  const bound = Math.sqrt(3) * (gain * Math.sqrt(2 / (fanIn + fanOut)));
  return rng.uniform(shape, -bound, bound);
}

/** Normal weights; with the defaults, how PyTorch's Embedding starts. */
export const normalWeights = (rng: Generator, shape: Shape, { mean = 0, std = 1 } = {}): NdArray<'float32'> =>
  rng.normal(shape, mean, std);

/** Normal weights confined to low..high by inverting the distribution function, like torch.nn.init.trunc_normal_. */
export function truncNormal(
  rng: Generator,
  shape: Shape,
  { mean = 0, std = 1, low = -2, high = 2 } = {},
): NdArray<'float32'> {
  const erfAt = (x: number) => erf((x - mean) / std / Math.SQRT2);
  const out = rng.fillUniform(new Float32Array(sizeOf(shape)), erfAt(low), erfAt(high));
  const scale = Math.fround(std * Math.SQRT2);
  for (let i = 0; i < out.length; i++) {
    out[i] = erfinv(out[i]);
    out[i] *= scale;
    out[i] = Math.min(Math.max(out[i] + mean, low), high);
  }
  return ndarray(out, shape);
}
