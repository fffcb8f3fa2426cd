import type { Tensor } from '../tensor/index.js';

/**
 * What a denoiser's output means, for x = alpha x0 + sigma noise:
 * the noise, the clean sample, v = alpha noise - sigma x0 (Salimans and Ho 2022), or the flow noise - x0.
 */
export const predictionTypes = ['epsilon', 'x0', 'v', 'flow'] as const;
/** Networks of score SDEs may answer with the score itself, -noise / sigma; nothing is trained so here. */
export type PredictionType = (typeof predictionTypes)[number] | 'score';

/** The weights [of x, of the prediction] that give x0, for numbers alpha and sigma. */
export function x0Weights(type: PredictionType, alpha: number, sigma: number): [x: number, prediction: number] {
  switch (type) {
    case 'epsilon':
      return [1 / alpha, -sigma / alpha];
    case 'x0':
      return [0, 1];
    case 'v': // alpha^2 + sigma^2 = 1
      return [alpha, -sigma];
    case 'flow': // alpha + sigma = 1
      return [1, -sigma];
    case 'score':
      return [1 / alpha, sigma ** 2 / alpha];
  }
}

/** Per-sample [N] levels of noise: x = alpha x0 + sigma noise. */
export interface NoiseLevels {
  readonly alpha: Tensor;
  readonly sigma: Tensor;
}

/** [N] as [N, 1, ...], to broadcast against `like`. */
export const perSample = (values: Tensor, like: Tensor): Tensor =>
  values.reshape([values.shape[0], ...like.shape.slice(1).map(() => 1)]);

/** The forward process: alpha x0 + sigma noise, [N, ...]. */
export const addNoise = (x0: Tensor, noise: Tensor, { alpha, sigma }: NoiseLevels): Tensor =>
  perSample(alpha, x0).mul(x0).add(perSample(sigma, x0).mul(noise));

/** What a denoiser of this type should have answered. */
export function predictionTarget(type: PredictionType, x0: Tensor, noise: Tensor, levels: NoiseLevels): Tensor {
  switch (type) {
    case 'epsilon':
      return noise;
    case 'x0':
      return x0;
    case 'v':
      return perSample(levels.alpha, x0).mul(noise).sub(perSample(levels.sigma, x0).mul(x0));
    case 'flow':
      return noise.sub(x0);
    case 'score':
      return noise.neg().div(perSample(levels.sigma, x0));
  }
}

/** The clean sample that a prediction implies for x; {@link x0Weights} on tensors. */
export function predictedX0(type: PredictionType, prediction: Tensor, x: Tensor, levels: NoiseLevels): Tensor {
  const [alpha, sigma] = [perSample(levels.alpha, x), perSample(levels.sigma, x)];
  switch (type) {
    case 'epsilon':
      return x.sub(sigma.mul(prediction)).div(alpha);
    case 'x0':
      return prediction;
    case 'v':
      return alpha.mul(x).sub(sigma.mul(prediction));
    case 'flow':
      return x.sub(sigma.mul(prediction));
    case 'score':
      return x.add(sigma.square().mul(prediction)).div(alpha);
  }
}

/** The noise that a prediction implies for x. */
export function predictedNoise(type: PredictionType, prediction: Tensor, x: Tensor, levels: NoiseLevels): Tensor {
  if (type === 'epsilon') return prediction;
  const [alpha, sigma] = [perSample(levels.alpha, x), perSample(levels.sigma, x)];
  if (type === 'v') return alpha.mul(prediction).add(sigma.mul(x)); // finite where sigma is 0, too
  if (type === 'flow') return x.add(alpha.mul(prediction));
  if (type === 'score') return sigma.mul(prediction).neg();
  return x.sub(alpha.mul(prediction)).div(sigma);
}

/** A prediction said in other terms: what a denoiser of type `to` would have answered. */
export function convertPrediction(
  from: PredictionType,
  to: PredictionType,
  prediction: Tensor,
  x: Tensor,
  levels: NoiseLevels,
): Tensor {
  if (from === to) return prediction;
  const x0 = predictedX0(from, prediction, x, levels);
  return to === 'x0' ? x0 : predictionTarget(to, x0, predictedNoise(from, prediction, x, levels), levels);
}
