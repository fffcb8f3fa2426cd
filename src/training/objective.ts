import { ndarray } from '../array/index.js';
import {
  addNoise,
  denoisingLoss,
  drawNoiseLevels,
  type FlowWeighting,
  flowWeights,
  hybridLoss,
  minSnrWeights,
  type NoiseScheduleConfig,
  noiseSchedule,
  type PredictionType,
  predictionTarget,
  RectifiedFlow,
  shiftSigma,
  signalToNoise,
  type TimestepDensity,
  type TimestepDensityOptions,
  VariancePreserving,
} from '../diffusion/index.js';
import type { Generator } from '../random/index.js';
import { constant, draw, gather, randint, randn, split, type Tensor } from '../tensor/index.js';

/** One noisy batch and what the model should say about it; axis 0 of every tensor is the batch. */
export type NoisyBatch = {
  /** x_t, [N, ...]. */
  readonly x: Tensor;
  /** What the model is told the time is, [N]: int64 0..T-1, or float32 1000 sigma for flows. */
  readonly timestep: Tensor;
  /** What the model should predict: as x, or the classes [N] for a classifier. */
  readonly target: Tensor;
  /** Weight of each sample in the loss, [N]; absent when all count the same. */
  readonly weight?: Tensor;
  /** Where the variance is learned, too: the clean samples and the noise. */
  readonly x0?: Tensor;
  readonly noise?: Tensor;
};

/** How training noise is drawn and what is predicted: a process and a parameterisation. */
export interface Objective {
  readonly predictionType: PredictionType;
  /**
   * Noises clean samples x0 [N, ...] inside a traced step.
   * @param labels their classes [N], for a classifier. @param noise that goes with them, as x0; default: drawn.
   */
  noisy(x0: Tensor, rng: Generator, labels?: Tensor, noise?: Tensor): NoisyBatch;
  /** The scalar loss of the model's answer to a batch, or to a part of one. */
  loss(prediction: Tensor, batch: NoisyBatch): Tensor;
}

const meanSquares = (prediction: Tensor, { target, weight }: NoisyBatch): Tensor =>
  denoisingLoss(prediction, target, weight);

export interface VariancePreservingOptions {
  readonly predictionType: Exclude<PredictionType, 'flow'>;
  readonly schedule?: Partial<NoiseScheduleConfig>;
  /** Min-SNR weighting (Hang et al. 2023), e.g. 5; without it every timestep counts the same. */
  readonly minSnrGamma?: number;
  /** Train the variance, too, by improved DDPM's hybrid loss: the model answers with twice the channels. */
  readonly learnVariance?: boolean;
}

/** DDPM's training (Ho et al. 2020): uniform timesteps, x_t = sqrt(ac_t) x0 + sqrt(1 - ac_t) noise. */
export function variancePreserving(options: VariancePreservingOptions): Objective {
  const { predictionType, minSnrGamma, learnVariance = false } = options;
  const schedule = noiseSchedule(options.schedule);
  const process = new VariancePreserving(schedule);
  const snr = signalToNoise(schedule.alphasCumprod, [...schedule.alphasCumprod.keys()]);
  const weights = minSnrGamma === undefined ? undefined : minSnrWeights(snr, minSnrGamma, predictionType);
  return {
    predictionType,
    noisy(x0, rng, _labels, noise = randn(x0.shape, rng)) {
      const timestep = randint(0, process.numTrainTimesteps, [x0.shape[0]], rng);
      const levels = process.levels(timestep);
      return {
        x: addNoise(x0, noise, levels),
        timestep,
        target: predictionTarget(predictionType, x0, noise, levels),
        weight: weights && gather(constant(ndarray([...weights])), timestep),
        ...(learnVariance && { x0, noise }),
      };
    },
    loss(prediction, batch) {
      if (!learnVariance) return meanSquares(prediction, batch);
      const { x0, noise, timestep: timesteps, weight: weights } = batch;
      return hybridLoss(schedule, { x0: x0!, noise: noise!, timesteps, prediction, type: predictionType, weights });
    },
  };
}

export interface RectifiedFlowOptions extends TimestepDensityOptions {
  /** How often each noise level is trained (SD3, Esser et al. 2024); default logit_normal. */
  readonly density?: TimestepDensity;
  /** How much each noise level counts; default none. */
  readonly weighting?: FlowWeighting;
  /** Moves the noise levels up, as the sampler does (SD3 has 3); default 1. */
  readonly shift?: number;
  /** Measure the error of the clean sample that the flow leads to, not of the flow itself: sigma^2 times as much. */
  readonly preconditionOutputs?: boolean;
}

/** Flow matching along straight lines: x_t = (1 - sigma) x0 + sigma noise, and the model predicts noise - x0. */
export function rectifiedFlow({
  density = 'logit_normal',
  weighting = 'none',
  shift = 1,
  preconditionOutputs = false,
  ...shape
}: RectifiedFlowOptions = {}): Objective {
  const process = new RectifiedFlow();
  const weighted = weighting !== 'none' || preconditionOutputs;
  // Times and their weights are drawn together on the host: [2, n].
  const drawTimes = (n: number, rng: Generator) => {
    const sigmas = drawNoiseLevels(density, n, rng, shape).map((u) => shiftSigma(1 - u, shift));
    const times = sigmas.map((sigma) => sigma * process.numTrainTimesteps);
    const weights = flowWeights(weighting, sigmas).map((w, i) => (preconditionOutputs ? w * sigmas[i] ** 2 : w));
    return ndarray([...times, ...weights], [2, n]);
  };
  return {
    predictionType: 'flow',
    noisy(x0, rng, _labels, noise = randn(x0.shape, rng)) {
      const n = x0.shape[0];
      const [timestep, weight] = split(
        draw([2, n], 'float32', () => drawTimes(n, rng)),
        2,
      ).map((row) => row.reshape([n]));
      const levels = process.levels(timestep);
      const target = predictionTarget('flow', x0, noise, levels);
      return { x: addNoise(x0, noise, levels), timestep, target, weight: weighted ? weight : undefined };
    },
    loss: meanSquares,
  };
}
