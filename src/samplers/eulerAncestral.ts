import { zeroSnrField } from './config.js';
import { explodingFields, explodingSolver } from './exploding.js';
import { noise, sum, x, x0 } from './linear.js';
import { explodingX0, preservedAtRatio } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';

const name = 'EulerAncestralDiscreteScheduler';

const f = Math.fround;

/**
 * How much of a step from sigma to next is noise put back, and how far down the step goes before that. Rounded as
 * diffusers does: after a long step little but rounding is left of next^2 - up^2, or nothing at all.
 */
export function ancestral(sigma: number, next: number): { up: number; down: number } {
  const [from, to] = [f(sigma ** 2), f(next ** 2)];
  const up = f(Math.sqrt(f(f(to * f(from - to)) / from)));
  const left = f(to - f(up ** 2));
  return { up, down: left > 0 ? f(Math.sqrt(left)) : next ** 2 / sigma };
}

/** Euler's method with ancestral noise, as k-diffusion's. Follows diffusers' EulerAncestralDiscreteScheduler. */
export const eulerAncestral = defineSampler({
  className: name,
  config: { ...explodingFields, ...zeroSnrField },
  options: { steps: stepsField.default(50), start: startField },

  create(config) {
    const solver = explodingSolver(name, config);
    return {
      ...solver,
      plan({ steps, start }) {
        const levels = solver.levels(steps);
        const sigmas = Float32Array.from([...levels.sigmas, 0]);
        const calls = levels.times.map((timestep, i): SamplerCall => {
          const sigma = sigmas[i];
          const { up, down } = ancestral(sigma, sigmas[i + 1]);
          const derivative = sum([1 / sigma, x], [-1 / sigma, x0]);
          return {
            timestep,
            inputScale: preservedAtRatio(sigma).alpha,
            alpha: 1,
            sigma,
            x0: explodingX0(solver.predictionType, sigma),
            next: { x: sum([1, x], [down - sigma, derivative], [up, noise]) },
          };
        });
        return makePlan({ name, calls, initialScale: solver.initialScale(sigmas), sigmas, start });
      },
    };
  },
});
