import { z } from 'zod';
import {
  clippingOf,
  extendedNumber,
  finalSigmaField,
  ownAlgorithm,
  solverTypeField,
  thresholdFields,
} from './config.js';
import { modelHistory, multistepOrder, multistepUpdate } from './dpmUpdate.js';
import { type Linear, noise, prediction, sum, x, x0 } from './linear.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { exponentialSigmas, karrasSigmas } from './sigmas.js';

const edmFields = {
  sigmaMin: z.number().positive().default(0.002),
  sigmaMax: z.number().positive().default(80),
  /** Standard deviation of the data. */
  sigmaData: z.number().positive().default(0.5),
  sigmaSchedule: z.enum(['karras', 'exponential']).default('karras'),
  numTrainTimesteps: z.number().int().positive().default(1000),
  /** Both stand for the paper's network F; the sign of its output differs. */
  predictionType: z.enum(['epsilon', 'v_prediction']).default('epsilon'),
  rho: z.number().positive().default(7),
  finalSigmasType: finalSigmaField,
};
type EdmConfig = z.output<z.ZodObject<typeof edmFields>>;

/** The preconditioning of Karras et al. 2022, table 1: x = x0 + sigma noise around a network of unit variances. */
function preconditioning(config: EdmConfig) {
  const { sigmaData, sigmaMin, sigmaMax, rho } = config;
  const sign = config.predictionType === 'epsilon' ? 1 : -1;
  const spaced = (count: number): Float64Array =>
    config.sigmaSchedule === 'karras'
      ? karrasSigmas(sigmaMax, sigmaMin, count, rho)
      : exponentialSigmas(sigmaMin, sigmaMax, count).reverse(); // a single one is the smallest, as in diffusers
  return {
    predictionType: config.predictionType === 'epsilon' ? 'epsilon' : 'v',
    initialScale: Math.sqrt(sigmaMax ** 2 + 1),
    /** `smallest`: what final sigmas of sigma_min end at; by default the last level. */
    sigmas: (steps: number, smallest?: number): Float32Array => {
      const levels = spaced(steps);
      return Float32Array.from([...levels, config.finalSigmasType === 'zero' ? 0 : (smallest ?? levels[steps - 1])]);
    },
    marginal: (timestep: number) => ({ alpha: 1, sigma: Math.exp(4 * timestep) }),
    /** What every call at a sigma shares. */
    call: (sigma: number) => ({
      timestep: Math.fround(0.25 * Math.log(sigma)),
      inputScale: 1 / Math.sqrt(sigma ** 2 + sigmaData ** 2),
      alpha: 1,
      sigma,
    }),
    x0: (sigma: number, input: Linear = x): Linear => {
      const variance = sigma ** 2 + sigmaData ** 2;
      return sum([sigmaData ** 2 / variance, input], [(sign * sigma * sigmaData) / Math.sqrt(variance), prediction]);
    },
  } as const;
}

/** Euler's method with optional churn: Karras et al. 2022, algorithm 2. Follows diffusers' EDMEulerScheduler. */
export const edmEuler = defineSampler({
  className: 'EDMEulerScheduler',
  config: edmFields,
  options: {
    steps: stepsField.default(50),
    start: startField,
    sChurn: z.number().min(0).default(0),
    sTmin: z.number().default(0),
    sTmax: extendedNumber.default(Infinity),
    sNoise: z.number().default(1),
  },
  create(config) {
    const edm = preconditioning(config);
    return {
      ...edm,
      plan({ steps, start, sChurn, sTmin, sTmax, sNoise }) {
        const sigmas = edm.sigmas(steps);
        const calls = Array.from(sigmas.subarray(0, -1), (sigma, i): SamplerCall => {
          const gamma = sigma >= sTmin && sigma <= sTmax ? Math.min(sChurn / steps, Math.SQRT2 - 1) : 0;
          const sigmaHat = sigma * (gamma + 1);
          const xHat = sum([1, x], [sNoise * Math.sqrt(sigmaHat ** 2 - sigma ** 2), noise]);
          const derivative = sum([1 / sigmaHat, xHat], [-1 / sigmaHat, x0]);
          const next = sum([1, xHat], [sigmas[i + 1] - sigmaHat, derivative]);
          return { ...edm.call(sigma), x0: edm.x0(sigmaHat, xHat), next: { x: next } };
        });
        return makePlan({ name: 'EDMEulerScheduler', calls, initialScale: edm.initialScale, sigmas, start });
      },
    };
  },
});

/** DPM-Solver++ in sigma, multistep. Follows diffusers' EDMDPMSolverMultistepScheduler. */
export const edmDpmSolverMultistep = defineSampler({
  className: 'EDMDPMSolverMultistepScheduler',
  config: {
    ...edmFields,
    solverOrder: z.literal([1, 2, 3]).default(2),
    ...thresholdFields,
    algorithmType: z.enum(['dpmsolver++', 'sde-dpmsolver++', 'deis']).default('dpmsolver++').transform(ownAlgorithm),
    solverType: solverTypeField,
    lowerOrderFinal: z.boolean().default(true),
    eulerAtFinal: z.boolean().default(false),
  },
  options: { steps: stepsField.default(20), start: startField },
  create(config) {
    const edm = preconditioning(config);
    const { solverOrder, solverType, algorithmType: algorithm } = config;
    return {
      ...edm,
      plan({ steps, start }) {
        const sigmas = edm.sigmas(steps, config.sigmaMin); // not the only level of one step, as in diffusers
        const points = Array.from(sigmas, (sigma) => ({ alpha: 1, sigma, lambda: -Math.log(sigma) }));
        const lowerAtEnd = config.lowerOrderFinal && steps < 15;
        const firstOrderAtEnd = config.eulerAtFinal || config.finalSigmasType === 'zero';
        const calls = Array.from(sigmas.subarray(0, -1), (sigma, i): SamplerCall => {
          const known = i - start + 1;
          const order = multistepOrder({ solverOrder, known, left: steps - i, lowerAtEnd, firstOrderAtEnd });
          const levels = [points[i + 1], points[i], points[i - 1], points[i - 2]] as const;
          const next = multistepUpdate({ algorithm, solverType, order, levels, m0: x0 });
          return { ...edm.call(sigma), x0: edm.x0(sigma), next: { x: next, ...modelHistory(x0, solverOrder - 1) } };
        });
        const clipping = clippingOf(config);
        const name = 'EDMDPMSolverMultistepScheduler';
        return makePlan({ name, calls, initialScale: edm.initialScale, sigmas, start, clipping });
      },
    };
  },
});
