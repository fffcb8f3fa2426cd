import type { z } from 'zod';
import { type NoiseScheduleConfig, noiseSchedule, type PredictionType } from '../diffusion/index.js';
import { predictionField, predictionTypeOf, scheduleFields, spacingFields } from './config.js';
import type { Marginal } from './marginal.js';
import {
  checkSigmaSpacing,
  interpolate,
  logOf,
  respacedSigmas,
  type SigmaSpacing,
  sigmasOf,
  sigmaToTimestep,
  withFiniteSigmas,
} from './sigmas.js';
import { checkCount, checkTimesteps, type SpacingConfig, spacedTimesteps } from './spacing.js';

/** Config fields of the samplers over x = x0 + sigma noise. */
export const explodingFields = {
  ...scheduleFields,
  predictionType: predictionField('epsilon', 'sample', 'v_prediction'),
  ...spacingFields('linspace'),
};

type ExplodingConfig = z.output<z.ZodObject<typeof explodingFields>> &
  SpacingConfig &
  SigmaSpacing &
  NoiseScheduleConfig;

/** Noise levels of a run, without the final one. */
export interface Levels {
  readonly sigmas: readonly number[];
  readonly times: readonly number[];
}

/** What the samplers over x = x0 + sigma noise share. */
export interface ExplodingSolver {
  readonly predictionType: PredictionType;
  /** Sigma of every training timestep, ascending. */
  readonly trained: Float32Array;
  readonly logSigmas: Float32Array;
  marginal(timestep: number): Marginal;
  /** Levels spaced as the config says; `timesteps` of the caller's own take the place of even ones. */
  levels(steps: number, timesteps?: readonly number[]): Levels;
  initialScale(sigmas: Float32Array): number;
}

export function explodingSolver(name: string, config: ExplodingConfig): ExplodingSolver {
  checkSigmaSpacing(name, config);
  const trained = sigmasOf(withFiniteSigmas(noiseSchedule(config).alphasCumprod));
  const logSigmas = logOf(trained);
  return {
    predictionType: predictionTypeOf(config.predictionType),
    trained,
    logSigmas,
    marginal: (t) => ({ alpha: 1, sigma: interpolate(trained, t) }),
    levels(steps, timesteps) {
      const times = timesteps?.map(Math.fround) ?? spacedTimesteps(config, steps, false);
      checkCount(name, trained.length, times.length);
      if (timesteps) checkTimesteps(name, trained.length, times);
      const even = times.map((t) => interpolate(trained, t));
      const respaced = respacedSigmas(config, even[0], even[even.length - 1], steps);
      if (!respaced) return { sigmas: even, times };
      return {
        sigmas: Array.from(respaced),
        times: Array.from(respaced, (sigma) => sigmaToTimestep(sigma, logSigmas)),
      };
    },
    initialScale(sigmas) {
      const max = sigmas.reduce((a, b) => Math.max(a, b));
      return config.timestepSpacing === 'leading' ? Math.sqrt(max ** 2 + 1) : max;
    },
  };
}
