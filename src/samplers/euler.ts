import { z } from 'zod';
import { linspaceFloat32, noiseSchedule } from '../diffusion/index.js';
import {
  extendedNumber,
  finalSigmaField,
  predictionField,
  predictionTypeOf,
  scheduleFields,
  sigmaSpacingFields,
  spacingFields,
  zeroSnrField,
} from './config.js';
import { noise, prediction, sum, x, x0 } from './linear.js';
import { explodingX0, preservedAtRatio } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import {
  checkSigmaSpacing,
  interpolate,
  logOf,
  respacedSigmas,
  sigmasOf,
  sigmaToTimestep,
  withFiniteSigmas,
} from './sigmas.js';
import { checkTimesteps, spacedTimesteps } from './spacing.js';

/** Euler's method in sigma, with optional churn: Karras et al. 2022, algorithm 2. Follows EulerDiscreteScheduler. */
export const euler = defineSampler({
  className: 'EulerDiscreteScheduler',
  config: {
    ...scheduleFields,
    predictionType: predictionField('epsilon', 'sample', 'v_prediction'),
    interpolationType: z.enum(['linear', 'log_linear']).default('linear'),
    ...sigmaSpacingFields,
    sigmaMin: z.number().positive().nullable().default(null),
    sigmaMax: z.number().positive().nullable().default(null),
    ...spacingFields('linspace'),
    timestepType: z.enum(['discrete', 'continuous']).default('discrete'),
    ...zeroSnrField,
    finalSigmasType: finalSigmaField,
  },
  options: {
    steps: stepsField.optional(),
    timesteps: z.array(z.number()).optional(),
    /** Descending, with the final one (usually 0): one more than there are steps. */
    sigmas: z.array(z.number().min(0)).min(2).optional(),
    start: startField,
    sChurn: z.number().min(0).default(0),
    sTmin: z.number().default(0),
    sTmax: extendedNumber.default(Infinity),
    sNoise: z.number().default(1),
  },

  create(config) {
    checkSigmaSpacing('EulerDiscreteScheduler', config);
    const predictionType = predictionTypeOf(config.predictionType);
    const trained = sigmasOf(withFiniteSigmas(noiseSchedule(config).alphasCumprod));
    const logSigmas = logOf(trained);
    const continuous = config.timestepType === 'continuous' && predictionType === 'v';

    /** The noise levels of a run, the final one included, and the timesteps of all but that. */
    const levels = (steps: number, timesteps?: readonly number[]): { sigmas: Float32Array; times: number[] } => {
      const times = timesteps?.map(Math.fround) ?? spacedTimesteps(config, steps, false);
      checkTimesteps('EulerDiscreteScheduler', trained.length, times);
      const even =
        config.interpolationType === 'linear'
          ? times.map((t) => interpolate(trained, t))
          : Array.from(linspaceFloat32(logSigmas[logSigmas.length - 1], logSigmas[0], steps + 1).map(Math.exp));
      const max = config.sigmaMax ?? even[0];
      const min = config.sigmaMin ?? even[even.length - 1];
      const respaced = respacedSigmas(config, max, min, steps);
      const final = config.finalSigmasType === 'zero' ? 0 : trained[0];
      return {
        sigmas: Float32Array.from([...(respaced ?? even), final]),
        times: respaced ? Array.from(respaced, (sigma) => sigmaToTimestep(sigma, logSigmas)) : times,
      };
    };

    return {
      predictionType,
      marginal: (t) => ({ alpha: 1, sigma: continuous ? Math.exp(4 * t) : interpolate(trained, t) }),
      plan({ steps, timesteps, sigmas: given, start, sChurn, sTmin, sTmax, sNoise }) {
        const { sigmas, times } = given
          ? { sigmas: Float32Array.from(given), times: given.slice(0, -1).map((s) => sigmaToTimestep(s, logSigmas)) }
          : levels(timesteps?.length ?? steps ?? 50, timesteps);
        const maxSigma = sigmas.reduce((a, b) => Math.max(a, b));

        const calls = times.map((t, i): SamplerCall => {
          const sigma = sigmas[i];
          const churned = sigma >= sTmin && sigma <= sTmax;
          const gamma = churned ? Math.min(sChurn / (sigmas.length - 1), Math.SQRT2 - 1) : 0;
          const sigmaHat = sigma * (gamma + 1);
          const xHat = sum([1, x], [sNoise * Math.sqrt(sigmaHat ** 2 - sigma ** 2), noise]);
          const derivative = sum([1 / sigmaHat, xHat], [-1 / sigmaHat, x0]);
          return {
            timestep: Math.fround(continuous ? 0.25 * Math.log(sigma) : t),
            inputScale: preservedAtRatio(sigma).alpha,
            alpha: 1,
            sigma,
            x0:
              predictionType === 'epsilon'
                ? sum([1, xHat], [-sigmaHat, prediction])
                : explodingX0(predictionType, sigma, xHat),
            next: { x: sum([1, xHat], [sigmas[i + 1] - sigmaHat, derivative]) },
          };
        });
        const initialScale = config.timestepSpacing === 'leading' ? Math.sqrt(maxSigma ** 2 + 1) : maxSigma;
        return makePlan({ name: 'EulerDiscreteScheduler', calls, initialScale, sigmas, start });
      },
    };
  },
});
