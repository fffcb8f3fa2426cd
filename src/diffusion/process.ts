import { ndarray } from '../array/index.js';
import { constant, gather, type Tensor } from '../tensor/index.js';
import type { NoiseSchedule } from './noiseSchedule.js';
import type { NoiseLevels } from './prediction.js';

/** How data turns into noise: the marginals x = alpha x0 + sigma noise at each time. */
export interface Process {
  /** Times run up to this, as the denoiser is told them. */
  readonly numTrainTimesteps: number;
  /** How training draws times: whole ones below T, or any number in (0, T]. */
  readonly time: 'discrete' | 'continuous';
  /** Noise levels [N] at times [N]: int64 where discrete, float32 where continuous. */
  levels(timesteps: Tensor): NoiseLevels;
}

/** Keeps the variance at 1 (Ho et al. 2020): alpha^2 = alphasCumprod, sigma^2 = 1 - alphasCumprod. */
export class VariancePreserving implements Process {
  readonly time = 'discrete';

  constructor(readonly schedule: NoiseSchedule) {}

  get numTrainTimesteps(): number {
    return this.schedule.betas.length;
  }

  levels(timesteps: Tensor): NoiseLevels {
    const alphasCumprod = gather(constant(ndarray(this.schedule.alphasCumprod)), timesteps, 0);
    return { alpha: alphasCumprod.sqrt(), sigma: constant(1).sub(alphasCumprod).sqrt() };
  }
}

/** A straight line from data to noise (Liu et al. 2022): sigma = t / T, alpha = 1 - sigma. */
export class RectifiedFlow implements Process {
  readonly time = 'continuous';

  constructor(readonly numTrainTimesteps = 1000) {}

  levels(timesteps: Tensor): NoiseLevels {
    const sigma = timesteps.div(this.numTrainTimesteps);
    return { alpha: constant(1).sub(sigma), sigma };
  }
}

/** Moves a flow's noise level towards noise for large images (Esser et al. 2024, equation 23). */
export const shiftSigma = (sigma: number, shift: number): number => (shift * sigma) / (1 + (shift - 1) * sigma);
