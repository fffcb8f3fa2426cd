import { z } from 'zod';
import { linspace, noiseSchedule, roundHalfToEven, shiftSigma } from '../diffusion/index.js';
import {
  predictionField,
  predictionTypeOf,
  scheduleFields,
  sigmaSpacingFields,
  spacingFields,
  thresholdFields,
} from './config.js';
import type { Level } from './dpmUpdate.js';
import { type Linear, sum, x, x0 } from './linear.js';
import { epsilonForm, type Marginal, preservedAtRatio, rectified, x0Form } from './marginal.js';
import {
  checkSigmaSpacing,
  interpolate,
  logOf,
  respacedSigmas,
  type SigmaSpacing,
  sigmasOf,
  sigmaToTimestep,
  withFiniteSigmas,
} from './sigmas.js';

/** Config fields that the solvers in log-SNR (DPM-Solver and its relatives) share. */
export const logSnrFields = {
  ...scheduleFields,
  predictionType: predictionField('epsilon', 'sample', 'v_prediction', 'flow_prediction'),
  ...thresholdFields,
  ...sigmaSpacingFields,
  useFlowSigmas: z.boolean().default(false),
  flowShift: z.number().positive().default(1),
  ...spacingFields('linspace'),
  useDynamicShifting: z.boolean().default(false),
  timeShiftType: z.enum(['exponential', 'linear']).default('exponential'),
};

type Fields = z.output<z.ZodObject<typeof logSnrFields>>;
type LogSnrConfig = Omit<Fields, 'timestepSpacing' | 'stepsOffset'> & SigmaSpacing & { rescaleBetasZeroSnr?: boolean };

/** What the solvers in log-SNR share: noise levels out of sigmas, and the two ways of reading a prediction. */
export function logSnrSolver(name: string, config: LogSnrConfig) {
  checkSigmaSpacing(name, config);
  const predictionType = predictionTypeOf(config.predictionType);
  if (predictionType === 'flow' && !config.useFlowSigmas)
    throw new TypeError(`${name}: predictionType flow_prediction needs useFlowSigmas true, got false`);
  const alphasCumprod = withFiniteSigmas(noiseSchedule(config).alphasCumprod);
  const trained = sigmasOf(alphasCumprod);
  const logSigmas = logOf(trained);
  const total = trained.length;

  const marginalOf = (sigma: number): Marginal => (config.useFlowSigmas ? rectified(sigma) : preservedAtRatio(sigma));

  return {
    predictionType,
    trained,
    marginal: (t: number) => marginalOf(config.useFlowSigmas ? t / total : interpolate(trained, t)),
    level(sigma: number): Level {
      const marginal = marginalOf(sigma);
      return { ...marginal, lambda: Math.log(marginal.alpha) - Math.log(marginal.sigma) };
    },

    /** x0 of a call, and the noise of it in terms of the (possibly thresholded) x0. */
    x0: (level: Level): Linear => x0Form(predictionType, level),
    epsilon: (level: Level): Linear =>
      config.thresholding
        ? sum([1 / level.sigma, x], [-level.alpha / level.sigma, x0])
        : epsilonForm(predictionType, level),

    /**
     * Sigmas of a run without the final one, and whole timesteps, where the config replaces the even spacing.
     * The timesteps of Karras' and Lu's sigmas are rounded unless `truncate`, others' are always cut.
     */
    respaced(steps: number, truncate = false): { sigmas: number[]; times: number[] } | undefined {
      const sigmas = respacedSigmas(config, trained[total - 1], trained[0], steps);
      const round = !truncate && (config.useKarrasSigmas || config.useLuLambdas) ? roundHalfToEven : Math.trunc;
      return (
        sigmas && {
          sigmas: Array.from(sigmas),
          times: Array.from(sigmas, (sigma) => round(sigmaToTimestep(sigma, logSigmas))),
        }
      );
    },
    /** How many training timesteps, from 0 up, have a lambda of at least `lambdaMin`. */
    unclipped(lambdaMin: number): number {
      const clipped = alphasCumprod.findIndex((alphaBar) => 0.5 * Math.log(alphaBar / (1 - alphaBar)) < lambdaMin);
      return clipped < 0 ? total : clipped;
    },
    even: (times: readonly number[]) => ({ sigmas: times.map((t) => interpolate(trained, t)), times: [...times] }),
    /** Sigmas of rectified flow; `mu` is the log of a shift that takes the place of the config's. */
    flow(steps: number, mu?: number): { sigmas: number[]; times: number[] } {
      const shift = mu === undefined ? config.flowShift : Math.exp(mu);
      const even = linspace(1, 1 / total, steps + 1).map((alpha) => 1 - alpha);
      const sigmas = Array.from(even, (sigma) => shiftSigma(sigma, shift));
      const descending = sigmas.reverse().slice(0, -1);
      return { sigmas: descending, times: descending.map((sigma) => Math.trunc(sigma * total)) };
    },
  };
}
