import { z } from 'zod';
import { linspace, shiftSigma } from '../diffusion/index.js';
import { sigmaSpacingFields } from './config.js';
import { noise, prediction, sum, x, x0 } from './linear.js';
import { rectified, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkSigmaSpacing, respacedSigmas } from './sigmas.js';

const name = 'FlowMatchEulerDiscreteScheduler';

/**
 * Euler's method along rectified flow, with the timestep shift of Esser et al. 2024 (SD3), fixed or by resolution.
 * Follows diffusers' FlowMatchEulerDiscreteScheduler.
 */
export const flowMatchEuler = defineSampler({
  className: name,
  config: {
    numTrainTimesteps: z.number().int().positive().default(1000),
    shift: z.number().positive().default(1),
    useDynamicShifting: z.boolean().default(false),
    baseShift: z.number().nullable().default(0.5),
    maxShift: z.number().nullable().default(1.15),
    baseImageSeqLen: z.number().int().positive().default(256),
    maxImageSeqLen: z.number().int().positive().default(4096),
    invertSigmas: z.boolean().default(false),
    shiftTerminal: z.number().min(0).max(1).nullable().default(null),
    ...sigmaSpacingFields,
    timeShiftType: z.enum(['exponential', 'linear']).default('exponential'),
    stochasticSampling: z.boolean().default(false),
  },
  options: {
    steps: stepsField.optional(),
    timesteps: z.array(z.number().positive()).min(1).optional(),
    /** Descending, without the final 0, before shifting. */
    sigmas: z.array(z.number().positive()).min(1).optional(),
    start: startField,
    /** Required with useDynamicShifting: log of the shift ('exponential') or the shift itself ('linear'). */
    mu: z.number().optional(),
  },

  create(config) {
    checkSigmaSpacing(name, config);
    const total = config.numTrainTimesteps;
    const trained = Float32Array.from({ length: total }, (_, i) => {
      const sigma = Math.fround((i + 1) / total);
      return config.useDynamicShifting ? sigma : shiftSigma(sigma, config.shift);
    });

    /** The noise levels of a run without the final one. */
    const levels = (steps: number, timesteps?: readonly number[], sigmas?: readonly number[], mu?: number) => {
      const times = timesteps?.map(Math.fround) ?? linspace(trained[total - 1] * total, trained[0] * total, steps);
      const even = sigmas?.map(Math.fround) ?? Array.from(times, (t) => t / total);
      const moved = even.map((sigma) =>
        config.useDynamicShifting ? dynamicShift(sigma, mu) : shiftSigma(sigma, config.shift),
      );
      const end = moved[moved.length - 1];
      const stretch = config.shiftTerminal ? (1 - config.shiftTerminal) / (1 - end) : 1;
      const stretched = moved.map((sigma) => 1 - (1 - sigma) * stretch);
      return respacedSigmas(config, stretched[0], stretched[stretched.length - 1], steps) ?? stretched;
    };

    const dynamicShift = (sigma: number, mu: number | undefined): number => {
      if (mu === undefined) throw new TypeError(`${name}: plan: useDynamicShifting needs mu, got nothing`);
      const shift = config.timeShiftType === 'exponential' ? Math.exp(mu) : mu;
      return shift / (shift + (1 / sigma - 1));
    };

    return {
      predictionType: 'flow',
      marginal: (t) => rectified(t / total),
      plan({ steps = 20, timesteps, sigmas: given, start, mu }) {
        const descending = Float32Array.from(levels((timesteps ?? given)?.length ?? steps, timesteps, given, mu));
        const [used, final] = config.invertSigmas ? [descending.map((sigma) => 1 - sigma), 1] : [descending, 0];
        const sigmas = Float32Array.from([...used, final]);
        const calls = Array.from(used, (sigma, i): SamplerCall => {
          const next = sigmas[i + 1];
          return {
            timestep: Math.fround(sigma * total),
            inputScale: 1,
            ...rectified(sigma),
            x0: x0Form('flow', rectified(sigma)),
            next: {
              x: config.stochasticSampling
                ? sum([1 - next, x0], [next, noise])
                : sum([1, x], [next - sigma, prediction]),
            },
          };
        });
        return makePlan({ name, calls, sigmas, start });
      },
    };
  },
});
