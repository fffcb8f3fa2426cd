import { z } from 'zod';
import { linspace, roundHalfToEven, shiftSigma } from '../diffusion/index.js';
import { clippingOf, finalSigmaField, zeroSnrField } from './config.js';
import { type Level, modelHistory } from './dpmUpdate.js';
import { type Linear, slot, sum, x, x0 } from './linear.js';
import { logSnrFields, logSnrSolver } from './logSnr.js';
import { epsilonForm } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { logOf, respacedSigmas, sigmaToTimestep } from './sigmas.js';
import { checkCount, multistepTimesteps } from './spacing.js';
import { uniWeights } from './uniWeights.js';

const name = 'UniPCMultistepScheduler';

/** The unified predictor-corrector of Zhao et al. 2023. Follows diffusers' UniPCMultistepScheduler. */
export const unipc = defineSampler({
  className: name,
  config: {
    ...logSnrFields,
    solverOrder: z.number().int().min(1).max(8).default(2),
    predictX0: z.boolean().default(true),
    solverType: z
      .enum(['bh1', 'bh2', 'midpoint', 'heun', 'logrho'])
      .default('bh2')
      .transform((type) => (type === 'bh1' ? type : 'bh2')), // other families' names fall back, as in diffusers
    lowerOrderFinal: z.boolean().default(true),
    /** Calls after which the correction is left out. */
    disableCorrector: z.array(z.number().int().min(0)).default([]),
    solverP: z.null().default(null),
    finalSigmasType: finalSigmaField,
    ...zeroSnrField,
    sigmaMin: z.number().positive().nullable().default(null),
    sigmaMax: z.number().positive().nullable().default(null),
    shiftTerminal: z.number().min(0).max(1).nullable().default(null),
  },
  options: {
    steps: stepsField.optional(),
    /** Noise levels without the final one, before shifting; with useFlowSigmas only. */
    sigmas: z.array(z.number().positive()).min(1).optional(),
    start: startField,
    /** With useDynamicShifting: log of the flow shift, or the shift itself when timeShiftType is linear. */
    mu: z.number().optional(),
  },

  create(config) {
    const { solverOrder, predictX0, solverType } = config;
    if (config.shiftTerminal !== null && !config.useFlowSigmas)
      throw new TypeError(`${name}: shiftTerminal needs useFlowSigmas true, got false`);
    const spacing = { useKarrasSigmas: config.useKarrasSigmas, useExponentialSigmas: config.useExponentialSigmas };
    const respacing = { ...spacing, useBetaSigmas: config.useBetaSigmas };
    const karrasFlow = config.useKarrasSigmas && config.useFlowSigmas;
    // Karras sigmas may be asked for together with flow sigmas: they are then turned into these.
    const solver = logSnrSolver(name, karrasFlow ? { ...config, useKarrasSigmas: false } : config);
    const { trained } = solver;
    const total = trained.length;

    const flowLevels = (steps: number, given?: readonly number[], mu?: number) => {
      const shift = config.timeShiftType === 'exponential' ? Math.exp(mu ?? 0) : mu!;
      const even = given ?? Array.from(linspace(1, 1 / total, steps + 1)).slice(0, -1);
      const shifted = even.map((sigma) =>
        config.useDynamicShifting ? shift / (shift + (1 / sigma - 1)) : shiftSigma(sigma, config.flowShift),
      );
      const end = shifted[shifted.length - 1];
      const scale = config.shiftTerminal ? (1 - end) / (1 - config.shiftTerminal) : 1;
      const sigmas = shifted.map((sigma) => 1 - (1 - sigma) / scale); // diffusers' order: the times are cut down below
      if (Math.abs(sigmas[0] - 1) < 1e-6) sigmas[0] -= 1e-6; // at 1 there is no signal, and lambda would be infinite
      return { sigmas, times: sigmas.map((sigma) => Math.trunc(sigma * total)) };
    };

    /** Noise levels without the final one, whole timesteps, and the sigma that sigma_min ends at. */
    const levels = (steps: number, given?: readonly number[], mu?: number) => {
      const [max, min] = [config.sigmaMax ?? trained[total - 1], config.sigmaMin ?? trained[0]];
      const respaced = respacedSigmas(respacing, max, min, steps);
      if (respaced && karrasFlow) {
        const sigmas = Array.from(respaced, (sigma) => sigma / (sigma + 1));
        return { sigmas, times: sigmas.map((sigma) => Math.trunc(sigma * total)) };
      }
      const round = config.useKarrasSigmas ? roundHalfToEven : Math.trunc;
      const logSigmas = logOf(trained);
      if (respaced)
        return {
          sigmas: Array.from(respaced),
          times: Array.from(respaced, (s) => round(sigmaToTimestep(s, logSigmas))),
        };
      if (config.useFlowSigmas) return flowLevels(steps, given, mu);
      return { ...solver.even(multistepTimesteps(config, steps)), smallest: trained[0] };
    };

    /** From `from` at level s to level t, where the model says `m0` at s and the rest at `others`. */
    const update = (t: Level, s: Level, from: Linear, m0: Linear, others: readonly Point[]): Linear => {
      const h = t.lambda - s.lambda;
      const z = predictX0 ? -h : h;
      const phi = Math.expm1(z);
      const scale = predictX0 ? t.alpha : t.sigma;
      const kept = sum([predictX0 ? t.sigma / s.sigma : t.alpha / s.alpha, from], [-scale * phi, m0]);
      if (others.length === 0) return kept;
      const B = solverType === 'bh1' ? z : phi;
      const ratios = others.map(({ level }) => (level === t ? 1 : (level.lambda - s.lambda) / h));
      const rho = uniWeights(ratios, z, B);
      const differences = others.map(({ said }, i) => sum([1 / ratios[i], said], [-1 / ratios[i], m0]));
      return sum([1, kept], ...differences.map((D, i) => [-scale * B * rho[i], D] as const));
    };

    return {
      predictionType: solver.predictionType,
      marginal: solver.marginal,
      plan({ steps = 20, sigmas: given, start, mu }) {
        if (given && !config.useFlowSigmas)
          throw new TypeError(`${name}: plan: sigmas need useFlowSigmas true, got false`);
        if (config.useDynamicShifting && mu === undefined)
          throw new TypeError(`${name}: plan: useDynamicShifting needs mu, got nothing`);
        const run = levels(given?.length ?? steps, given, mu);
        const { sigmas, times } = run;
        checkCount(name, total, times.length);
        const smallest = 'smallest' in run ? run.smallest : sigmas[sigmas.length - 1];
        const ratios = Float32Array.from([...sigmas, config.finalSigmasType === 'zero' ? 0 : smallest]);
        const points = Array.from(ratios, solver.level);
        const orderAt = (i: number) =>
          Math.min(solverOrder, config.lowerOrderFinal ? times.length - i : solverOrder, i - start + 1);

        const calls = times.map((timestep, i): SamplerCall => {
          const m0 = predictX0 ? x0 : epsilonForm(solver.predictionType, points[i]);
          const past = (count: number, offset: number): Point[] =>
            Array.from({ length: count }, (_, k) => ({ level: points[i - offset - k], said: slot(`m${offset + k}`) }));
          const corrects = i > start && !config.disableCorrector.includes(i - 1);
          const here = { level: points[i], said: m0 };
          const corrected = corrects
            ? update(points[i], points[i - 1], slot('last'), slot('m1'), [...past(orderAt(i - 1) - 1, 2), here])
            : x;
          const order = Math.max(1, orderAt(i));
          return {
            timestep,
            inputScale: 1,
            alpha: points[i].alpha,
            sigma: points[i].sigma,
            x0: solver.x0(points[i]),
            next: {
              x: update(points[i + 1], points[i], corrected, m0, past(order - 1, 1)),
              last: corrected,
              ...modelHistory(m0, solverOrder),
            },
          };
        });
        const clipping = predictX0 ? clippingOf(config) : undefined;
        return makePlan({ name, calls, sigmas: ratios, start, clipping });
      },
    };
  },
});

/** A level at which the model has spoken, and what it said. */
interface Point {
  readonly level: Level;
  readonly said: Linear;
}
