import { z } from 'zod';
import { clippingOf, extendedNumber, finalSigmaField, ownAlgorithm, solverTypeField } from './config.js';
import { dpmWeights, firstWeight, type Level, modelHistory, secondWeight } from './dpmUpdate.js';
import { type Linear, noise, slot, sum, x, x0 } from './linear.js';
import { logSnrFields, logSnrSolver } from './logSnr.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkTimesteps, multistepTimesteps } from './spacing.js';

const name = 'DPMSolverSinglestepScheduler';
const { timestepSpacing: _spacing, stepsOffset: _offset, ...fields } = logSnrFields;

/** Orders 1, 2, 3, 1, 2, 3 ...: each step begins with order 1 and ends with the solver's. */
function ordersOf(solverOrder: number, steps: number, lowerOrderFinal: boolean): number[] {
  const cycle = (count: number) => Array.from({ length: count }, (_, i) => (i % solverOrder) + 1);
  if (!lowerOrderFinal || solverOrder === 1) return cycle(steps);
  if (solverOrder === 2) return steps % 2 === 0 ? [...cycle(steps - 1), 1] : cycle(steps);
  return steps % 3 === 0 ? [...cycle(steps - 1), 1] : cycle(steps);
}

/**
 * DPM-Solver and DPM-Solver++, singlestep: Lu et al. 2022 (a, b). A step of order k spends k calls, which count as k
 * of `steps`. Follows diffusers' DPMSolverSinglestepScheduler.
 */
export const dpmSolverSinglestep = defineSampler({
  className: name,
  config: {
    ...fields,
    solverOrder: z.literal([1, 2, 3]).default(2),
    algorithmType: z
      .enum(['dpmsolver', 'dpmsolver++', 'sde-dpmsolver++', 'deis'])
      .default('dpmsolver++')
      .transform(ownAlgorithm),
    solverType: solverTypeField,
    lowerOrderFinal: z.boolean().default(false),
    finalSigmasType: finalSigmaField,
    lambdaMinClipped: extendedNumber.default(-Infinity),
    varianceType: z.enum(['learned', 'learned_range']).nullable().default(null),
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
    const solver = logSnrSolver(name, config);

    const levels = (steps: number, timesteps?: readonly number[], mu?: number) => {
      if (timesteps) {
        checkTimesteps(name, solver.trained.length, timesteps);
        return solver.even(timesteps);
      }
      if (config.useFlowSigmas) return solver.flow(steps, mu);
      const spacing = { ...config, timestepSpacing: 'linspace', stepsOffset: 0 } as const;
      const last = solver.unclipped(config.lambdaMinClipped);
      return solver.respaced(steps) ?? solver.even(multistepTimesteps(spacing, steps, last));
    };

    /** From the level where the step began, `back` calls ago, to t; `origin` is x there. */
    const update = (order: number, t: Level, began: Level, between: readonly Level[], m0: Linear): Linear => {
      const { h, keep, scale, z: step, std } = dpmWeights(algorithmType, began, t);
      const said = [m0, slot('m1'), slot('m2')].slice(0, order).reverse(); // from the step's first call to this one
      const ratios = between.map((level) => (level.lambda - began.lambda) / h);
      const slopes = ratios.map((r, i) => sum([1 / r, said[i + 1]], [-1 / r, said[0]]));
      const differences: [number, Linear][] = [[Math.expm1(step), said[0]]];
      if (order === 2) differences.push([firstWeight(solverType, step), slopes[0]]);
      if (order === 3 && solverType === 'midpoint') differences.push([firstWeight('heun', step), slopes[1]]);
      if (order === 3 && solverType === 'heun') {
        const [r1, r0] = ratios;
        const D1 = sum([r0 / (r0 - r1), slopes[0]], [-r1 / (r0 - r1), slopes[1]]);
        const D2 = sum([2 / (r0 - r1), slopes[1]], [-2 / (r0 - r1), slopes[0]]);
        differences.push([firstWeight('heun', step), D1], [secondWeight(algorithmType, step), D2]);
      }
      return sum([keep, order === 1 ? x : slot('origin')], [-scale, sum(...differences)], [std, noise]);
    };

    return {
      predictionType: solver.predictionType,
      marginal: solver.marginal,
      plan({ steps = 20, timesteps, start, mu }) {
        const { sigmas, times } = levels(timesteps?.length ?? steps, timesteps, mu);
        const final = config.finalSigmasType === 'zero' ? 0 : solver.trained[0];
        const ratios = Float32Array.from([...sigmas, final]);
        const points = Array.from(ratios, solver.level);
        const unfinished = times.length % solverOrder !== 0 || config.finalSigmasType === 'zero';
        const orders = ordersOf(solverOrder, times.length, config.lowerOrderFinal || unfinished);
        if (config.finalSigmasType === 'zero') orders[orders.length - 1] = 1;

        const calls = times.map((timestep, i): SamplerCall => {
          const order = Math.max(1, Math.min(orders[i], i - start + 1));
          const began = i - order + 1;
          const m0 = ofData ? x0 : solver.epsilon(points[i]);
          const next = update(order, points[i + 1], points[began], points.slice(began + 1, i + 1), m0);
          const origin = order === 1 ? x : slot('origin');
          return {
            timestep,
            inputScale: 1,
            alpha: points[i].alpha,
            sigma: points[i].sigma,
            x0: solver.x0(points[i]),
            next: { x: next, ...(solverOrder > 1 && { origin, ...modelHistory(m0, solverOrder - 1) }) },
          };
        });
        return makePlan({ name, calls, sigmas: ratios, start, clipping: clippingOf(config) });
      },
    };
  },
});
