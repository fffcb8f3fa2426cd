import { roundHalfToEven } from '../diffusion/index.js';
import { latentBetaFields, predictionField, sigmaSpacingFields } from './config.js';
import { ancestral } from './eulerAncestral.js';
import { explodingFields, explodingSolver } from './exploding.js';
import { noise, slot, sum, x } from './linear.js';
import { explodingX0, preservedAtRatio } from './marginal.js';
import { makePlan, type SamplerCall, type SamplerPlan } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { sigmaToTimestep } from './sigmas.js';

/** Where a step of the midpoint rule ends, and the noise added there. */
type Ending = (sigma: number, next: number) => { down: number; up: number };

const fields = {
  ...explodingFields,
  ...latentBetaFields,
  ...sigmaSpacingFields,
  predictionType: predictionField('epsilon', 'v_prediction'),
};
const options = { steps: stepsField.default(25), start: startField };

/** The midpoint rule in log sigma: k-diffusion's DPM2, after DPM-Solver-2 and algorithm 2 of Karras et al. 2022. */
function midpointSampler(name: string, ending: Ending) {
  return defineSampler({
    className: name,
    config: fields,
    options,
    create(config) {
      const solver = explodingSolver(name, config);
      return {
        ...solver,
        plan({ steps, start }): SamplerPlan {
          const levels = solver.levels(steps);
          const round = config.useKarrasSigmas ? roundHalfToEven : (t: number) => t;
          const times = levels.times.map(round);
          const sigmas = Float32Array.from([...levels.sigmas, 0]);
          const slope = slot('slope');

          const calls = times.flatMap((timestep, i): SamplerCall[] => {
            const sigma = sigmas[i];
            const { down, up } = ending(sigma, sigmas[i + 1]);
            const middle = down === 0 ? 0 : Math.fround(Math.sqrt(sigma * down));
            const call = (t: number, level: number, next: SamplerCall['next']): SamplerCall => ({
              timestep: Math.fround(t),
              inputScale: preservedAtRatio(level).alpha,
              alpha: 1,
              sigma: level,
              x0: explodingX0(solver.predictionType, level),
              slope: level,
              next,
            });
            const towards = sum([1, x], [middle - sigma, slope]);
            if (middle === 0) return [call(timestep, sigma, { x: towards })];
            const arrived = sum([1, slot('origin')], [down - sigma, slope], [up, noise]);
            return [
              call(timestep, sigma, { x: towards, origin: x }),
              call(sigmaToTimestep(middle, solver.logSigmas), middle, { x: arrived }),
            ];
          });
          const perCall = Float32Array.from([...calls.map((call) => call.sigma), 0]);
          return makePlan({ name, calls, initialScale: solver.initialScale(sigmas), sigmas: perCall, start });
        },
      };
    },
  });
}

/** Follows diffusers' KDPM2DiscreteScheduler. */
export const kdpm2 = midpointSampler('KDPM2DiscreteScheduler', (_, next) => ({ down: next, up: 0 }));

/** The same with ancestral noise. Follows diffusers' KDPM2AncestralDiscreteScheduler. */
export const kdpm2Ancestral = midpointSampler('KDPM2AncestralDiscreteScheduler', ancestral);
