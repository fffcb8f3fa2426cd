import { ndarray } from '../array/index.js';
import { constant, gather, stopGradient, type Tensor, where } from '../tensor/index.js';
import { denoisingLoss } from './losses.js';
import type { NoiseSchedule } from './noiseSchedule.js';
import { addNoise, type PredictionType, perSample, predictedX0, predictionTarget } from './prediction.js';
import { VariancePreserving } from './process.js';

export interface HybridLossInputs {
  /** Clean samples in [-1, 1], [N, C, ...]. */
  readonly x0: Tensor;
  readonly noise: Tensor;
  /** int64 [N] */
  readonly timesteps: Tensor;
  /** The denoiser's answer to x_t, [N, 2C, ...]: the mean's prediction, then v in about [-1, 1]. */
  readonly prediction: Tensor;
  readonly type: PredictionType;
  readonly weights?: Tensor;
  /** 1 as DiT trains; the paper's 0.001 per summed step is 0.001 T, which is the same for T = 1000. */
  readonly variationalWeight?: number;
}

/**
 * The hybrid loss of improved DDPM (Nichol and Dhariwal 2021): the simple loss, plus the variational bound in bits
 * per dimension, which teaches the variance only (the mean's prediction is held fixed in it). Scalar.
 */
export function hybridLoss(schedule: NoiseSchedule, inputs: HybridLossInputs): Tensor {
  const { x0, noise, timesteps, prediction, type, weights, variationalWeight = 1 } = inputs;
  const channels = x0.shape[1];
  if (prediction.shape[1] !== 2 * channels)
    throw new RangeError(`hybrid loss: expected ${2 * channels} channels of prediction, got ${prediction.shape[1]}`);
  const levels = new VariancePreserving(schedule).levels(timesteps);
  const mean = prediction.slice(1, 0, channels);
  const variance = prediction.slice(1, channels, 2 * channels);
  const simple = denoisingLoss(mean, predictionTarget(type, x0, noise, levels), weights);

  const x = addNoise(x0, noise, levels);
  const predicted = predictedX0(type, stopGradient(mean), x, levels);
  const bound = variationalBound(schedule, { x0, x, timesteps, predicted, variance });
  return simple.add(bound.mean().mul(variationalWeight));
}

interface BoundInputs {
  readonly x0: Tensor;
  readonly x: Tensor;
  readonly timesteps: Tensor;
  /** The clean sample the denoiser predicts. */
  readonly predicted: Tensor;
  /** Where between the bounds the log variance lies, in [-1, 1]. */
  readonly variance: Tensor;
}

/** One term of the variational bound per sample, in bits per dimension: [N]. */
export function variationalBound(schedule: NoiseSchedule, inputs: BoundInputs): Tensor {
  const { x0, x, timesteps, predicted, variance } = inputs;
  const tables = posteriorTables(schedule);
  const at = (table: Float32Array<ArrayBuffer>) => perSample(gather(constant(ndarray(table)), timesteps, 0), x);
  const posteriorMean = (clean: Tensor) => at(tables.ofX0).mul(clean).add(at(tables.ofX).mul(x));

  const [low, high] = [at(tables.logVariance), at(tables.logBeta)];
  const logVariance = low.add(variance.add(1).div(2).mul(high.sub(low)));
  const mean = posteriorMean(predicted);
  const divergence = gaussianDivergence(posteriorMean(x0), low, mean, logVariance);
  const likelihood = discretizedLogLikelihood(x0, mean, logVariance.div(2));
  const rest = x.shape.map((_, axis) => axis).slice(1);
  const first = timesteps.equal(constant(0, 'int64'));
  return where(first, likelihood.neg().mean(rest), divergence.mean(rest)).div(Math.LN2);
}

/** q(x_{t-1} | x_t, x_0) for every t: weights of its mean, its log variance (t = 0 borrows t = 1's) and log beta. */
function posteriorTables({ betas, alphasCumprod }: NoiseSchedule) {
  const previous = (t: number) => (t === 0 ? 1 : alphasCumprod[t - 1]);
  const table = (f: (t: number) => number) => Float32Array.from(betas, (_, t) => f(t));
  const variance = (t: number) => (betas[t] * (1 - previous(t))) / (1 - alphasCumprod[t]);
  return {
    ofX0: table((t) => (betas[t] * Math.sqrt(previous(t))) / (1 - alphasCumprod[t])),
    ofX: table((t) => ((1 - previous(t)) * Math.sqrt(1 - betas[t])) / (1 - alphasCumprod[t])),
    logVariance: table((t) => Math.log(variance(Math.max(t, 1)))),
    logBeta: table((t) => Math.log(betas[t])),
  };
}

/** KL divergence between normal distributions, element by element, in nats. */
const gaussianDivergence = (mean1: Tensor, logVariance1: Tensor, mean2: Tensor, logVariance2: Tensor): Tensor =>
  logVariance2
    .sub(logVariance1)
    .sub(1)
    .add(logVariance1.sub(logVariance2).exp())
    .add(mean1.sub(mean2).square().mul(logVariance2.neg().exp()))
    .div(2);

/** Log likelihood of 8-bit values scaled to [-1, 1] under a normal distribution, the outer bins open. */
function discretizedLogLikelihood(x: Tensor, mean: Tensor, logStd: Tensor): Tensor {
  const [centred, inverse] = [x.sub(mean), logStd.neg().exp()];
  const above = normalCdf(inverse.mul(centred.add(1 / 255)));
  const below = normalCdf(inverse.mul(centred.sub(1 / 255)));
  const log = (p: Tensor) => p.maximum(1e-12).log();
  const inside = where(x.greater(0.999), log(below.neg().add(1)), log(above.sub(below)));
  return where(x.less(-0.999), log(above), inside);
}

/** The tanh approximation of the normal distribution function that improved DDPM's code uses. */
const normalCdf = (z: Tensor): Tensor =>
  z
    .add(z.square().mul(z).mul(0.044715))
    .mul(Math.sqrt(2 / Math.PI))
    .tanh()
    .add(1)
    .div(2);
