import { z } from 'zod';
import { clipFields, clippingOf, latentBetaFields, sigmaSpacingFields } from './config.js';
import { explodingFields, explodingSolver } from './exploding.js';
import { slot, sum, x } from './linear.js';
import { explodingX0, preservedAtRatio } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';

const name = 'HeunDiscreteScheduler';

/**
 * Heun's second-order method in sigma: Karras et al. 2022, algorithm 1. Two calls a step, but one in the last.
 * Follows diffusers' HeunDiscreteScheduler.
 */
export const heun = defineSampler({
  className: name,
  config: { ...explodingFields, ...latentBetaFields, ...sigmaSpacingFields, ...clipFields(false) },
  options: { steps: stepsField.optional(), timesteps: z.array(z.number()).min(1).optional(), start: startField },

  create(config) {
    const solver = explodingSolver(name, config);
    return {
      ...solver,
      plan({ steps = 25, timesteps, start }) {
        const levels = solver.levels(timesteps?.length ?? steps, timesteps);
        const sigmas = Float32Array.from([...levels.sigmas, 0]);

        const calls = levels.times.flatMap((timestep, i): SamplerCall[] => {
          const [sigma, next] = [sigmas[i], sigmas[i + 1]];
          const call = (t: number, level: number, nextState: SamplerCall['next']): SamplerCall => ({
            timestep: Math.fround(t),
            inputScale: preservedAtRatio(level).alpha,
            alpha: 1,
            sigma: level,
            x0: explodingX0(solver.predictionType, level),
            slope: level,
            next: nextState,
          });
          const slope = slot('slope');
          const forward = sum([1, x], [next - sigma, slope]);
          if (next === 0) return [call(timestep, sigma, { x: forward })];
          const average = sum([0.5, slot('derivative')], [0.5, slope]);
          return [
            call(timestep, sigma, { x: forward, origin: x, derivative: slope }),
            call(levels.times[i + 1], next, { x: sum([1, slot('origin')], [next - sigma, average]) }),
          ];
        });
        const perCall = Float32Array.from([...calls.map((call) => call.sigma), 0]);
        const initialScale = solver.initialScale(sigmas);
        return makePlan({ name, calls, initialScale, sigmas: perCall, start, clipping: clippingOf(config) });
      },
    };
  },
});
