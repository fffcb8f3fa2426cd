import { ndarray } from '../array/index.js';
import { concat, constant, pad, type Tensor } from '../tensor/index.js';
import { expFloat32 } from './expFloat32.js';
import { Module } from './module.js';

export interface TimestepOptions {
  /** cos before sin; default false. */
  readonly flipSinToCos?: boolean;
  /** Default 1: the lowest frequency is then exactly 1 / maxPeriod. DiT and Stable Diffusion's UNets use 0 or 1. */
  readonly downscaleFreqShift?: number;
  /** Multiplies the angles; default 1. */
  readonly scale?: number;
  /** Default 10000. */
  readonly maxPeriod?: number;
}

/**
 * Sinusoids of timesteps [N] (floats or integers) as [N, dim], half sines and half cosines (Ho et al. 2020);
 * an odd `dim` ends with a zero. Follows diffusers' `get_timestep_embedding`.
 */
export function timestepEmbedding(
  timesteps: Tensor,
  dim: number,
  { flipSinToCos = false, downscaleFreqShift = 1, scale = 1, maxPeriod = 10000 }: TimestepOptions = {},
): Tensor {
  if (timesteps.rank !== 1) throw new RangeError(`timestepEmbedding: timesteps must be [N], got [${timesteps.shape}]`);
  const half = Math.floor(dim / 2);
  // Rounded to single precision where PyTorch does: at t = 999 an ulp of a frequency shows.
  const step = Math.fround(-Math.log(maxPeriod));
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    expFloat32(Math.fround(Math.fround(step * i) / Math.fround(half - downscaleFreqShift))),
  );
  const angles = timesteps
    .cast('float32')
    .unsqueeze(1)
    .mul(frequenciesOf(`${half} ${downscaleFreqShift} ${maxPeriod}`, frequencies))
    .mul(scale);
  const [sin, cos] = [angles.sin(), angles.cos()];
  const y = concat(flipSinToCos ? [cos, sin] : [sin, cos], 1);
  return dim % 2
    ? pad(y, [
        [0, 0],
        [0, 1],
      ])
    : y;
}

/** One node per table, so that embeddings of the same timesteps are computed once. */
const tables = new Map<string, Tensor>();
function frequenciesOf(key: string, values: Float32Array<ArrayBuffer>): Tensor {
  if (!tables.has(key)) tables.set(key, constant(ndarray(values, [1, values.length])));
  return tables.get(key)!;
}

/** {@link timestepEmbedding} with its settings. */
export class Timesteps extends Module {
  constructor(
    readonly dim: number,
    readonly options: TimestepOptions = {},
  ) {
    super();
  }

  forward(timesteps: Tensor): Tensor {
    return timestepEmbedding(timesteps, this.dim, this.options);
  }
}
