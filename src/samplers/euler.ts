import { z } from 'zod';
import { linspaceFloat32 } from '../diffusion/index.js';
import { extendedNumber, finalSigmaField, sigmaSpacingFields, zeroSnrField } from './config.js';
import { explodingFields, explodingSolver, type Levels } from './exploding.js';
import { noise, prediction, sum, x, x0 } from './linear.js';
import { explodingX0, preservedAtRatio } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { respacedSigmas, sigmaToTimestep } from './sigmas.js';

const name = 'EulerDiscreteScheduler';

/** Euler's method in sigma, with optional churn: Karras et al. 2022, algorithm 2. Follows EulerDiscreteScheduler. */
export const euler = defineSampler({
  className: name,
  config: {
    ...explodingFields,
    interpolationType: z.enum(['linear', 'log_linear']).default('linear'),
    ...sigmaSpacingFields,
    sigmaMin: z.number().positive().nullable().default(null),
    sigmaMax: z.number().positive().nullable().default(null),
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
    const solver = explodingSolver(name, config);
    const { predictionType, trained, logSigmas } = solver;
    const continuous = config.timestepType === 'continuous' && predictionType === 'v';

    /** Noise levels without the final one, and timesteps. */
    const levels = (steps: number, timesteps?: readonly number[]): Levels => {
      const even = solver.levels(steps, timesteps);
      if (config.interpolationType === 'linear' && config.sigmaMin === null && config.sigmaMax === null) return even;
      const [first, last] = [logSigmas[0], logSigmas[logSigmas.length - 1]];
      const logLinear = Array.from(linspaceFloat32(last, first, steps + 1).map(Math.exp));
      const sigmas = config.interpolationType === 'linear' ? even.sigmas : logLinear;
      const [max, min] = [config.sigmaMax ?? sigmas[0], config.sigmaMin ?? sigmas[sigmas.length - 1]];
      const respaced = respacedSigmas(config, max, min, steps);
      return respaced ? withTimes(Array.from(respaced)) : { sigmas, times: even.times };
    };
    const withTimes = (sigmas: readonly number[]): Levels => ({
      sigmas,
      times: sigmas.map((sigma) => sigmaToTimestep(sigma, logSigmas)),
    });

    return {
      predictionType,
      marginal: (t) => (continuous ? { alpha: 1, sigma: Math.exp(4 * t) } : solver.marginal(t)),
      plan({ steps, timesteps, sigmas: given, start, sChurn, sTmin, sTmax, sNoise }) {
        const final = given ? given[given.length - 1] : config.finalSigmasType === 'zero' ? 0 : trained[0];
        const run = given ? withTimes(given.slice(0, -1)) : levels(timesteps?.length ?? steps ?? 50, timesteps);
        const sigmas = Float32Array.from([...run.sigmas, final]);
        const times = continuous ? Array.from(sigmas.subarray(0, -1), (sigma) => 0.25 * Math.log(sigma)) : run.times;

        const calls = times.map((t, i): SamplerCall => {
          const sigma = sigmas[i];
          const churned = sigma >= sTmin && sigma <= sTmax;
          const gamma = churned ? Math.min(sChurn / (sigmas.length - 1), Math.SQRT2 - 1) : 0;
          const sigmaHat = sigma * (gamma + 1);
          const xHat = sum([1, x], [sNoise * Math.sqrt(sigmaHat ** 2 - sigma ** 2), noise]);
          const derivative = sum([1 / sigmaHat, xHat], [-1 / sigmaHat, x0]);
          return {
            timestep: Math.fround(t),
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
        return makePlan({ name, calls, initialScale: solver.initialScale(sigmas), sigmas, start });
      },
    };
  },
});
