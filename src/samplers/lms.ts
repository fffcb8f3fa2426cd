import { z } from 'zod';
import { sigmaSpacingFields } from './config.js';
import { explodingFields, explodingSolver } from './exploding.js';
import { type Linear, slot, sum, x, x0 } from './linear.js';
import { explodingX0, preservedAtRatio } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';

const name = 'LMSDiscreteScheduler';

/** Nodes and weights of Gauss-Legendre quadrature on [-1, 1]: exact for polynomials of degree 7. */
const quadrature = [
  [-0.8611363115940526, 0.3478548451374538],
  [-0.3399810435848563, 0.6521451548625461],
  [0.3399810435848563, 0.6521451548625461],
  [0.8611363115940526, 0.3478548451374538],
] as const;

/** The integral from `from` to `to` of the polynomial that is 1 at node j and 0 at the other nodes. */
function lagrangeIntegral(nodes: readonly number[], j: number, from: number, to: number): number {
  const polynomial = (tau: number) =>
    nodes.reduce((product, node, k) => (k === j ? product : (product * (tau - node)) / (nodes[j] - node)), 1);
  const half = (to - from) / 2;
  return quadrature.reduce((total, [node, weight]) => total + weight * half * polynomial(from + half * (node + 1)), 0);
}

/** Adams-Bashforth over uneven sigmas, as k-diffusion's LMS. Follows diffusers' LMSDiscreteScheduler. */
export const lms = defineSampler({
  className: name,
  config: { ...explodingFields, ...sigmaSpacingFields },
  options: { steps: stepsField.default(50), start: startField, order: z.number().int().min(1).max(8).default(4) },

  create(config) {
    const solver = explodingSolver(name, config);
    return {
      ...solver,
      plan({ steps, start, order }) {
        const levels = solver.levels(steps);
        const sigmas = Float32Array.from([...levels.sigmas, 0]);
        const calls = levels.times.map((timestep, i): SamplerCall => {
          const sigma = sigmas[i];
          const derivative = sum([1 / sigma, x], [-1 / sigma, x0]);
          const past = Array.from({ length: order - 1 }, (_, k) => `derivative${k + 1}`);
          const derivatives = [derivative, ...past.map(slot)];
          const known = Math.max(1, Math.min(i - start + 1, order));
          const nodes = Array.from({ length: known }, (_, k) => sigmas[i - k]);
          const weights = nodes.map(
            (_, k) => [lagrangeIntegral(nodes, k, sigma, sigmas[i + 1]), derivatives[k]] as const,
          );
          const history: [string, Linear][] = past.map((slotName, k) => [slotName, derivatives[k]]);
          return {
            timestep: Math.fround(timestep),
            inputScale: preservedAtRatio(sigma).alpha,
            alpha: 1,
            sigma,
            x0: explodingX0(solver.predictionType, sigma),
            next: { x: sum([1, x], ...weights), ...Object.fromEntries(history) },
          };
        });
        return makePlan({ name, calls, initialScale: solver.initialScale(sigmas), sigmas, start });
      },
    };
  },
});
