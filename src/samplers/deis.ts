import { z } from 'zod';
import { clippingOf } from './config.js';
import type { Level } from './dpmUpdate.js';
import { modelHistory, multistepOrder } from './dpmUpdate.js';
import { type Linear, slot, sum, x, x0 } from './linear.js';
import { logSnrFields, logSnrSolver } from './logSnr.js';
import type { Marginal } from './marginal.js';
import { numpyLog } from './numpyLog.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkCount, multistepTimesteps } from './spacing.js';

const name = 'DEISMultistepScheduler';

const f = Math.fround;

/** A noise level as diffusers rounds it. */
function roundedLevel(sigma: number, flow: boolean): Level {
  const alpha = flow ? f(1 - sigma) : f(1 / f(Math.sqrt(f(f(sigma ** 2) + 1))));
  const level = { alpha, sigma: flow ? sigma : f(sigma * alpha) };
  return { ...level, lambda: Math.log(level.alpha) - Math.log(level.sigma) };
}

const rhoOf = ({ alpha, sigma }: Marginal): number => f(sigma / alpha);

/**
 * The integral from a to b of the polynomial in log rho that is 1 at node j and 0 at the others. Rounded step by step, in
 * diffusers' order: for close nodes (beta sigmas) most digits cancel, and its runs move by up to 2e-3 on that account.
 */
function logLagrangeIntegral(nodes: readonly number[], j: number, a: number, b: number): number {
  // diffusers names the others in cyclic order.
  const others = nodes
    .map((_, k) => nodes[(j + 1 + k) % nodes.length])
    .slice(0, -1)
    .map(numpyLog);
  const [c, d] = others;
  const norm = others.map((node) => f(numpyLog(nodes[j]) - node)).reduce((product, factor) => f(product * factor));
  const antiderivative = (t: number): number => {
    const l = numpyLog(t);
    if (d === undefined) return f(f(t * f(f(l - c) - 1)) / norm);
    const terms = [f(c * f(f(d - l) + 1)), -f(d * l), d, f(l * l), -f(2 * l), 2];
    return f(f(t * terms.reduce((sum, term) => f(sum + term))) / norm);
  };
  return f(antiderivative(b) - antiderivative(a));
}

/**
 * The exponential integrator of Zhang and Chen 2022, with polynomials in log rho, orders 1 to 3.
 * Follows diffusers' DEISMultistepScheduler.
 */
export const deis = defineSampler({
  className: name,
  config: {
    ...logSnrFields,
    solverOrder: z.literal([1, 2, 3]).default(2),
    algorithmType: z
      .enum(['deis', 'dpmsolver', 'dpmsolver++'])
      .default('deis')
      .transform((): 'deis' => 'deis'),
    solverType: z
      .enum(['logrho', 'midpoint', 'heun', 'bh1', 'bh2'])
      .default('logrho')
      .transform((): 'logrho' => 'logrho'),
    lowerOrderFinal: z.boolean().default(true),
  },
  options: { steps: stepsField.default(20), start: startField, mu: z.number().optional() },

  create(config) {
    const { solverOrder } = config;
    const solver = logSnrSolver(name, config);

    // Of a v prediction diffusers takes the noise through x0: not the same under flow sigmas, whose variance is not 1.
    const epsilonAt = (level: Level): Linear =>
      solver.predictionType === 'v' && config.useFlowSigmas
        ? sum([1 / level.sigma, x], [-level.alpha / level.sigma, x0])
        : solver.epsilon(level);

    /** To t from levels[0], where the model says said[0]; it said the rest at the levels before. */
    const update = (t: Marginal, levels: readonly Marginal[], said: readonly Linear[]): Linear => {
      const [rho, ...nodes] = [t, ...levels].map(rhoOf);
      const weights = said.map((_, j) =>
        said.length === 1 ? rho - nodes[0] : logLagrangeIntegral(nodes, j, nodes[0], rho),
      );
      return sum([t.alpha / levels[0].alpha, x], ...said.map((form, j) => [t.alpha * weights[j], form] as const));
    };

    return {
      predictionType: solver.predictionType,
      marginal: solver.marginal,
      plan({ steps, start, mu }) {
        const replaced = config.useFlowSigmas ? solver.flow(steps, mu) : solver.respaced(steps);
        const { sigmas, times } = replaced ?? solver.even(multistepTimesteps(config, steps));
        checkCount(name, solver.trained.length, steps);
        const final = replaced ? sigmas[sigmas.length - 1] : solver.trained[0];
        const ratios = Float32Array.from([...sigmas, final]);
        const points = Array.from(ratios, (sigma) => roundedLevel(sigma, config.useFlowSigmas));
        const lowerAtEnd = config.lowerOrderFinal && steps < 15;

        const calls = times.map((timestep, i): SamplerCall => {
          const request = { solverOrder, known: i - start + 1, left: steps - i, lowerAtEnd, firstOrderAtEnd: false };
          const order = Math.max(1, multistepOrder(request));
          const said = [epsilonAt(points[i]), slot('m1'), slot('m2')];
          const before = Array.from({ length: order }, (_, k) => points[i - k]);
          return {
            timestep,
            inputScale: 1,
            alpha: points[i].alpha,
            sigma: points[i].sigma,
            x0: solver.x0(points[i]),
            next: { x: update(points[i + 1], before, said.slice(0, order)), ...modelHistory(said[0], solverOrder - 1) },
          };
        });
        return makePlan({ name, calls, sigmas: ratios, start, clipping: clippingOf(config) });
      },
    };
  },
});
