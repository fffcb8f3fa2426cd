import { ndarray } from '../array/index.js';
import {
  drawNoiseLevels,
  type FlowWeighting,
  flowWeights,
  minSnrWeights,
  type NoiseScheduleConfig,
  noiseSchedule,
  type PredictionType,
  signalToNoise,
  type TimestepDensity,
  type TimestepDensityOptions,
} from '../diffusion/index.js';
import type { Generator } from '../random/index.js';
import { constant, draw, gather, randint, randn, split, type Tensor } from '../tensor/index.js';

/** One noisy batch and what the model should say about it. */
export interface NoisyBatch {
  /** x_t, [N, ...]. */
  readonly x: Tensor;
  /** What the model is told the time is, [N]: int64 0..T-1, or float32 1000 sigma for flows. */
  readonly timestep: Tensor;
  /** What the model should predict, as x. */
  readonly target: Tensor;
  /** Weight of each sample in the loss, [N]; absent when all count the same. */
  readonly weight?: Tensor;
}

/** How training noise is drawn and what is predicted: a process and a parameterisation. */
export interface Objective {
  readonly predictionType: PredictionType;
  /** Noises clean samples x0 [N, ...] inside a traced step. */
  noisy(x0: Tensor, rng: Generator): NoisyBatch;
}

export interface VariancePreservingOptions {
  readonly predictionType: Exclude<PredictionType, 'flow'>;
  readonly schedule?: Partial<NoiseScheduleConfig>;
  /** Min-SNR weighting (Hang et al. 2023), e.g. 5; without it every timestep counts the same. */
  readonly minSnrGamma?: number;
}

/** DDPM's training (Ho et al. 2020): uniform timesteps, x_t = sqrt(ac_t) x0 + sqrt(1 - ac_t) noise. */
export function variancePreserving({ predictionType, schedule, minSnrGamma }: VariancePreservingOptions): Objective {
  const { alphasCumprod } = noiseSchedule(schedule);
  const steps = alphasCumprod.length;
  const table = (f: (ac: number) => number) => constant(ndarray(Float32Array.from(alphasCumprod, f), [steps]));
  const alphas = table(Math.sqrt);
  const sigmas = table((ac) => Math.sqrt(1 - ac));
  const snr = signalToNoise(alphasCumprod, [...alphasCumprod.keys()]);
  const weights =
    minSnrGamma === undefined
      ? undefined
      : constant(ndarray(minSnrWeights(snr, minSnrGamma, predictionType) as Float32Array<ArrayBuffer>));
  return {
    predictionType,
    noisy(x0, rng) {
      const n = x0.shape[0];
      const noise = randn(x0.shape, rng);
      const timestep = randint(0, steps, [n], rng);
      const perSample = [n, ...x0.shape.slice(1).map(() => 1)];
      const [alpha, sigma] = [alphas, sigmas].map((values) => gather(values, timestep).reshape(perSample));
      const x = x0.mul(alpha).add(noise.mul(sigma));
      const targets = { epsilon: () => noise, x0: () => x0, v: () => noise.mul(alpha).sub(x0.mul(sigma)) };
      return { x, timestep, target: targets[predictionType](), weight: weights && gather(weights, timestep) };
    },
  };
}

export interface RectifiedFlowOptions extends TimestepDensityOptions {
  /** How often each noise level is trained (SD3, Esser et al. 2024); default logit_normal. */
  readonly density?: TimestepDensity;
  /** How much each noise level counts; default none. */
  readonly weighting?: FlowWeighting;
}

/** Flow matching along straight lines: x_t = (1 - sigma) x0 + sigma noise, and the model predicts noise - x0. */
export function rectifiedFlow({
  density = 'logit_normal',
  weighting = 'none',
  ...shape
}: RectifiedFlowOptions = {}): Objective {
  const drawLevels = (n: number, rng: Generator) => {
    const sigmas = drawNoiseLevels(density, n, rng, shape).map((u) => 1 - u);
    return ndarray([...sigmas, ...flowWeights(weighting, sigmas)], [2, n]);
  };
  return {
    predictionType: 'flow',
    noisy(x0, rng) {
      const n = x0.shape[0];
      const noise = randn(x0.shape, rng);
      const [sigma, weight] = split(
        draw([2, n], 'float32', () => drawLevels(n, rng)),
        2,
      );
      const x = x0.add(noise.sub(x0).mul(sigma.reshape([n, ...x0.shape.slice(1).map(() => 1)])));
      return {
        x,
        timestep: sigma.reshape([n]).mul(1000),
        target: noise.sub(x0),
        weight: weighting === 'none' ? undefined : weight.reshape([n]),
      };
    },
  };
}

/** Mean squared error of predictions [N, ...], weighted per sample. */
export function weightedMse(prediction: Tensor, target: Tensor, weight?: Tensor): Tensor {
  const squares = prediction.sub(target).square();
  if (!weight) return squares.mean();
  const n = prediction.shape[0];
  return squares.reshape([n, -1]).mean(1).mul(weight).mean();
}
