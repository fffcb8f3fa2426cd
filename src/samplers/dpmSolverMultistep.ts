import { z } from 'zod';
import { clippingOf, extendedNumber, finalSigmaField, ownAlgorithm, solverTypeField, zeroSnrField } from './config.js';
import { modelHistory, multistepOrder, multistepUpdate } from './dpmUpdate.js';
import { x0 } from './linear.js';
import { logSnrFields, logSnrSolver } from './logSnr.js';
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
    solverOrder: z.literal([1, 2, 3]).default(2),
    algorithmType: z
      .enum(['dpmsolver', 'dpmsolver++', 'sde-dpmsolver', 'sde-dpmsolver++', 'deis'])
      .default('dpmsolver++')
      .transform(ownAlgorithm),
    solverType: solverTypeField,
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
      const last = solver.unclipped(config.lambdaMinClipped);
      return solver.respaced(steps, cosine) ?? solver.even(multistepTimesteps(config, steps, last));
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
        const lowerAtEnd = config.lowerOrderFinal && times.length < 15;
        const firstOrderAtEnd = config.eulerAtFinal || config.finalSigmasType === 'zero';
        const calls = times.map((timestep, i): SamplerCall => {
          const left = times.length - i;
          const order = multistepOrder({ solverOrder, known: i - start + 1, left, lowerAtEnd, firstOrderAtEnd });
          const m0 = ofData ? x0 : solver.epsilon(points[i]);
          const levels = [points[i + 1], points[i], points[i - 1], points[i - 2]] as const;
          const next = multistepUpdate({ algorithm: algorithmType, solverType, order, levels, m0 });
          return {
            timestep,
            inputScale: 1,
            alpha: points[i].alpha,
            sigma: points[i].sigma,
            x0: solver.x0(points[i]),
            next: { x: next, ...modelHistory(m0, solverOrder - 1) },
          };
        });
        return makePlan({ name, calls, sigmas: ratios, start, clipping: clippingOf(config) });
      },
    };
  },
});
