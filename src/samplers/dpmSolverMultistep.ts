import { z } from 'zod';
import { clippingOf, extendedNumber, finalSigmaField, zeroSnrField } from './config.js';
import { type Linear, noise, slot, sum, x, x0 } from './linear.js';
import { type Level, logSnrFields, logSnrSolver } from './logSnr.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkCount, checkTimesteps, multistepTimesteps } from './spacing.js';

const name = 'DPMSolverMultistepScheduler';

/**
 * DPM-Solver and DPM-Solver++, multistep, orders 1 to 3, as ODE and as SDE: Lu et al. 2022 (a, b).
 * Follows diffusers' DPMSolverMultistepScheduler.
 */
export const dpmSolverMultistep = defineSampler({
  className: name,
  config: {
    ...logSnrFields,
    solverOrder: z.union([z.literal(1), z.literal(2), z.literal(3)]).default(2),
    algorithmType: z
      .enum(['dpmsolver', 'dpmsolver++', 'sde-dpmsolver', 'sde-dpmsolver++', 'deis'])
      .default('dpmsolver++')
      .transform((type) => (type === 'deis' ? 'dpmsolver++' : type)), // other families' names fall back, as in diffusers
    solverType: z
      .enum(['midpoint', 'heun', 'logrho', 'bh1', 'bh2'])
      .default('midpoint')
      .transform((type) => (type === 'heun' ? type : 'midpoint')),
    lowerOrderFinal: z.boolean().default(true),
    eulerAtFinal: z.boolean().default(false),
    useLuLambdas: z.boolean().default(false),
    finalSigmasType: finalSigmaField,
    lambdaMinClipped: extendedNumber.default(-Infinity),
    varianceType: z.enum(['learned', 'learned_range']).nullable().default(null),
    ...zeroSnrField,
  },
  options: {
    steps: stepsField.optional(),
    timesteps: z.array(z.number().int()).optional(),
    start: startField,
    /** Log of the flow shift, for useDynamicShifting. */
    mu: z.number().optional(),
  },

  create(config) {
    const { algorithmType, solverType, solverOrder } = config;
    const ofData = algorithmType.endsWith('++');
    if (!ofData && config.finalSigmasType === 'zero')
      throw new TypeError(`${name}: algorithmType ${algorithmType} needs finalSigmasType sigma_min, got zero`);
    if (!ofData && config.predictionType === 'flow_prediction')
      throw new TypeError(`${name}: flow_prediction needs algorithmType dpmsolver++, got ${algorithmType}`);
    if (algorithmType === 'sde-dpmsolver' && solverOrder === 3)
      throw new TypeError(`${name}: algorithmType sde-dpmsolver has solverOrder 1 and 2, got 3`);
    const solver = logSnrSolver(name, config);

    const levels = (steps: number, timesteps?: readonly number[], mu?: number) => {
      if (mu !== undefined && !config.useDynamicShifting)
        throw new TypeError(`${name}: plan: mu needs useDynamicShifting true, got false`);
      if (timesteps) return solver.even(timesteps);
      const cosine = config.betaSchedule === 'squaredcos_cap_v2';
      if (config.useFlowSigmas) return solver.flow(steps, mu);
      const last = unclippedTimesteps(solver.alphasCumprod, config.lambdaMinClipped);
      return solver.respaced(steps, cosine) ?? solver.even(multistepTimesteps(config, steps, last));
    };

    /** One step from s0 to t, given the earlier levels s1 and s2 where the order asks for them. */
    const update = (order: number, t: Level, s0: Level, s1: Level, s2: Level): Linear => {
      const h = t.lambda - s0.lambda;
      const { keep, scale, z, std } = {
        'dpmsolver++': { keep: t.sigma / s0.sigma, scale: t.alpha, z: -h, std: 0 },
        dpmsolver: { keep: t.alpha / s0.alpha, scale: t.sigma, z: h, std: 0 },
        'sde-dpmsolver++': {
          keep: (t.sigma / s0.sigma) * Math.exp(-h),
          scale: t.alpha,
          z: -2 * h,
          std: t.sigma * Math.sqrt(-Math.expm1(-2 * h)),
        },
        'sde-dpmsolver': {
          keep: t.alpha / s0.alpha,
          scale: 2 * t.sigma,
          z: h,
          std: t.sigma * Math.sqrt(Math.expm1(2 * h)),
        },
      }[algorithmType];
      const [m0, m1, m2] = [ofData ? x0 : solver.epsilon(s0), slot('m1'), slot('m2')];
      const phi = Math.expm1(z);
      const differences: [number, Linear][] = [[phi, m0]];
      if (order > 1 && h !== 0) {
        const r0 = (s0.lambda - s1.lambda) / h;
        const D1 = sum([1 / r0, m0], [-1 / r0, m1]);
        const heun = phi / z - 1;
        if (order === 2) differences.push([solverType === 'heun' ? heun : 0.5 * phi, D1]);
        else {
          const r1 = (s1.lambda - s2.lambda) / h;
          const earlier = sum([1 / r1, m1], [-1 / r1, m2]);
          const D2 = sum([1 / (r0 + r1), D1], [-1 / (r0 + r1), earlier]);
          // diffusers has this sign of 1/2 for the SDE, whose weight then does not vanish with h
          const half = algorithmType === 'sde-dpmsolver++' ? 0.5 : -0.5;
          differences.push([heun, sum([1, D1], [r0, D2])], [(phi - z) / z ** 2 + half, D2]);
        }
      }
      return sum([keep, x], [-scale, sum(...differences)], [std, noise]);
    };

    return {
      predictionType: solver.predictionType,
      marginal: solver.marginal,
      plan({ steps = 20, timesteps, start, mu }) {
        const { sigmas, times } = levels(timesteps?.length ?? steps, timesteps, mu);
        checkCount(name, solver.trained.length, times.length);
        if (timesteps) checkTimesteps(name, solver.trained.length, times);
        const final = config.finalSigmasType === 'zero' ? 0 : solver.trained[0];
        const ratios = Float32Array.from([...sigmas, final]);
        const points = Array.from(ratios, solver.level);
        const few = times.length < 15;
        const calls = times.map((timestep, i): SamplerCall => {
          const left = times.length - i;
          const finish = config.eulerAtFinal || config.finalSigmasType === 'zero' || (config.lowerOrderFinal && few);
          const allowed = left === 1 && finish ? 1 : left === 2 && config.lowerOrderFinal && few ? 2 : 3;
          const order = Math.min(solverOrder, i - start + 1, allowed);
          const m0 = ofData ? x0 : solver.epsilon(points[i]);
          const history = { m1: m0, m2: slot('m1') };
          return {
            timestep,
            inputScale: 1,
            alpha: points[i].alpha,
            sigma: points[i].sigma,
            x0: solver.x0(points[i]),
            next: {
              x: update(order, points[i + 1], points[i], points[i - 1], points[i - 2]),
              ...Object.fromEntries(Object.entries(history).slice(0, solverOrder - 1)),
            },
          };
        });
        return makePlan({ name, calls, sigmas: ratios, start, clipping: clippingOf(config) });
      },
    };
  },
});

/** How many training timesteps, from 0 up, have a lambda of at least `lambdaMin`. */
function unclippedTimesteps(alphasCumprod: Float32Array, lambdaMin: number): number {
  const clipped = alphasCumprod.findIndex((alphaBar) => 0.5 * Math.log(alphaBar / (1 - alphaBar)) < lambdaMin);
  return clipped < 0 ? alphasCumprod.length : clipped;
}
