import type { Generator } from '../random/index.js';
import type { PredictionType } from './prediction.js';

/**
 * Signal-to-noise ratios alphasCumprod / (1 - alphasCumprod) at the given timesteps, with diffusers' rounding.
 * @throws RangeError for a timestep outside the table.
 */
export function signalToNoise(alphasCumprod: Float32Array, timesteps: ArrayLike<number>): Float32Array<ArrayBuffer> {
  const f = Math.fround;
  return Float32Array.from(timesteps, (t) => {
    const alpha = alphasCumprod[t];
    if (alpha === undefined)
      throw new RangeError(`signalToNoise: timestep ${t} out of range 0..${alphasCumprod.length - 1}`);
    return f(f(Math.sqrt(alpha)) / f(Math.sqrt(f(1 - alpha)))) ** 2;
  });
}

/**
 * Min-SNR-gamma loss weights (Hang et al. 2023): min(snr, gamma) on the error of x0, expressed for what the model
 * predicts. The paper recommends gamma 5. At snr 0 the weight of epsilon is its limit, 1.
 * @throws RangeError for flow, which has weightings of its own ({@link flowWeights}), and for scores.
 */
export function minSnrWeights(
  snr: Float32Array<ArrayBuffer>,
  gamma: number,
  type: PredictionType,
): Float32Array<ArrayBuffer> {
  switch (type) {
    case 'x0':
      return snr.map((r) => Math.min(r, gamma));
    case 'epsilon':
      return snr.map((r) => Math.min(1, gamma / r));
    case 'v':
      return snr.map((r) => Math.min(r, gamma) / (r + 1));
    case 'flow':
    case 'score':
      throw new RangeError(`minSnrWeights: prediction '${type}', expected epsilon, x0 or v`);
  }
}

export const timestepDensities = ['uniform', 'logit_normal', 'mode', 'u_shaped'] as const;
export type TimestepDensity = (typeof timestepDensities)[number];

export interface TimestepDensityOptions {
  /** Mean and standard deviation of the normal number under logit_normal; default 0 and 1. */
  readonly logitMean?: number;
  readonly logitStd?: number;
  /** How far mode favours the middle; default 1.29. */
  readonly modeScale?: number;
  /** How far u_shaped favours the ends; default 4. */
  readonly endsScale?: number;
}

/**
 * Noise levels in (0, 1) to train a rectified flow on, drawn from the densities of Stable Diffusion 3 (Esser et al.
 * 2024, section 3.1). Take the drawn u as a share of the timesteps counted from the noisiest: index floor(u T).
 * `u_shaped`, density exp(a u) + exp(a (1 - u)), is for flows that are straight already: after reflow what is left to
 * learn lies near both ends (Lee et al. 2024, 2-rectified flow++).
 */
export function drawNoiseLevels(
  density: TimestepDensity,
  count: number,
  rng: Generator,
  { logitMean = 0, logitStd = 1, modeScale = 1.29, endsScale = 4 }: TimestepDensityOptions = {},
): Float32Array<ArrayBuffer> {
  switch (density) {
    case 'uniform':
      return rng.rand([count]).data;
    case 'logit_normal':
      return rng.normal([count], logitMean, logitStd).data.map((x) => 1 / (1 + Math.exp(-x)));
    case 'mode':
      return rng.rand([count]).data.map((u) => 1 - u - modeScale * (Math.cos((Math.PI * u) / 2) ** 2 - 1 + u));
    case 'u_shaped': {
      const sides = rng.rand([count]).data;
      const grown = rng.rand([count]).data.map((p) => Math.log1p(p * Math.expm1(endsScale)) / endsScale);
      return grown.map((u, i) => (sides[i] < 0.5 ? u : 1 - u));
    }
  }
}

export const flowWeightings = ['none', 'sigma_sqrt', 'cosmap'] as const;
export type FlowWeighting = (typeof flowWeightings)[number];

/**
 * Loss weights of a rectified flow at noise levels sigma, as diffusers' SD3 trainer. `sigma_sqrt` is sigma^-2 there, its
 * name notwithstanding; `cosmap` is the density of Esser et al. 2024 as a weight.
 */
export function flowWeights(weighting: FlowWeighting, sigmas: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  switch (weighting) {
    case 'none':
      return sigmas.map(() => 1);
    case 'sigma_sqrt':
      return sigmas.map((sigma) => sigma ** -2);
    case 'cosmap':
      return sigmas.map((sigma) => 2 / (Math.PI * (1 - 2 * sigma + 2 * sigma * sigma)));
  }
}
