import { z } from 'zod';
import { linspace, shiftSigma } from '../diffusion/index.js';
import { extendedNumber } from './config.js';
import { noise, slot, sum, x } from './linear.js';
import { rectified, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';

const name = 'FlowMatchHeunDiscreteScheduler';

/**
 * Heun's method along rectified flow: two calls a step, one in the last. Follows diffusers'
 * FlowMatchHeunDiscreteScheduler.
 */
export const flowMatchHeun = defineSampler({
  className: name,
  config: { numTrainTimesteps: z.number().int().positive().default(1000), shift: z.number().positive().default(1) },
  options: {
    steps: stepsField.default(25),
    start: startField,
    sChurn: z.number().min(0).default(0),
    sTmin: z.number().default(0),
    sTmax: extendedNumber.default(Infinity),
    sNoise: z.number().default(1),
  },

  create({ numTrainTimesteps: total, shift }) {
    const smallest = shiftSigma(1 / total, shift);
    return {
      predictionType: 'flow',
      marginal: (t) => rectified(t / total),
      plan({ steps, start, sChurn, sTmin, sTmax, sNoise }) {
        const even = linspace(1, smallest, steps); // shifted already, and now once more, as in diffusers
        const sigmas = Float32Array.from([...Array.from(even, (sigma) => shiftSigma(sigma, shift)), 0]);
        const calls = Array.from(sigmas.subarray(0, -1), (sigma, i): SamplerCall[] => {
          const next = sigmas[i + 1];
          const gamma = sigma >= sTmin && sigma <= sTmax ? Math.min(sChurn / (2 * steps - 1), Math.SQRT2 - 1) : 0;
          const sigmaHat = sigma * (gamma + 1);
          const xHat = sum([1, x], [sNoise * Math.sqrt(sigmaHat ** 2 - sigma ** 2), noise]);
          const call = (level: number, slope: number, state: SamplerCall['next']): SamplerCall => ({
            timestep: Math.fround(level * total),
            inputScale: 1,
            ...rectified(level),
            x0: x0Form('flow', rectified(level)),
            slope, // the prediction by another name, but diffusers rounds it so: much, where a level is close to 0
            next: state,
          });
          const slope = slot('slope');
          const forward = sum([1, xHat], [next - sigmaHat, slope]);
          if (next === 0) return [call(sigma, sigmaHat, { x: forward })];
          const average = sum([0.5, slot('derivative')], [0.5, slope]);
          return [
            call(sigma, sigmaHat, { x: forward, origin: xHat, derivative: slope }),
            call(next, next, { x: sum([1, slot('origin')], [next - sigmaHat, average]) }),
          ];
        }).flat();
        const perCall = Float32Array.from([...calls.map((call) => call.sigma), 0]);
        return makePlan({ name, calls, sigmas: perCall, start });
      },
    };
  },
});
