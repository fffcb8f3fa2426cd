import { type PredictionType, x0Weights } from '../diffusion/index.js';
import { type Linear, prediction, sum, x } from './linear.js';

/** x = alpha x0 + sigma noise. */
export interface Marginal {
  readonly alpha: number;
  readonly sigma: number;
}

/** Unit variance, from alphasCumprod at a timestep. */
export const preserved = (alphaBar: number): Marginal => ({
  alpha: Math.sqrt(alphaBar),
  sigma: Math.sqrt(1 - alphaBar),
});

/** Unit variance, from the noise-to-signal ratio. */
export const preservedAtRatio = (ratio: number): Marginal => {
  const alpha = 1 / Math.sqrt(ratio ** 2 + 1);
  return { alpha, sigma: ratio * alpha };
};

/** A straight line from data to noise. */
export const rectified = (sigma: number): Marginal => ({ alpha: 1 - sigma, sigma });

/** The clean sample out of x and the prediction. `input`: x in the scaling of the marginal. */
export function x0Form(type: PredictionType, { alpha, sigma }: Marginal, input: Linear = x): Linear {
  const [ofX, ofPrediction] = x0Weights(type, alpha, sigma);
  return sum([ofX, input], [ofPrediction, prediction]);
}

/** The clean sample when x = x0 + ratio noise, but the denoiser was trained on x of unit variance. */
export function explodingX0(type: PredictionType, ratio: number, input: Linear = x): Linear {
  const marginal = preservedAtRatio(ratio);
  return x0Form(type, marginal, sum([marginal.alpha, input]));
}

/** The noise out of x and the prediction. */
export function epsilonForm(type: PredictionType, marginal: Marginal): Linear {
  const { alpha, sigma } = marginal;
  if (type === 'epsilon') return prediction;
  if (type === 'v') return sum([alpha, prediction], [sigma, x]);
  if (type === 'score') return sum([-sigma, prediction]);
  return sum([1 / sigma, x], [-alpha / sigma, x0Form(type, marginal)]);
}
