import { z } from 'zod';
import { betaSchedules, type PredictionType } from '../diffusion/index.js';
import type { Clipping } from './plan.js';

/** What the sampler's model predicts, under diffusers' names. */
const predictionNames = {
  epsilon: 'epsilon',
  sample: 'x0',
  v_prediction: 'v',
  flow_prediction: 'flow',
  score: 'score',
} as const satisfies Record<string, PredictionType>;
type PredictionName = keyof typeof predictionNames;

export const predictionTypeOf = (name: PredictionName): PredictionType => predictionNames[name];
export const predictionField = (...names: [PredictionName, ...PredictionName[]]) => z.enum(names).default('epsilon');

/** A number that may be infinite. */
export const extendedNumber = z.union([z.number(), z.literal([Infinity, -Infinity])]);

const positiveInteger = z.number().int().positive();

/** Fields of every scheduler over a discrete variance preserving noise schedule. */
export const scheduleFields = {
  numTrainTimesteps: positiveInteger.default(1000),
  betaStart: z.number().positive().default(1e-4),
  betaEnd: z.number().positive().default(0.02),
  betaSchedule: z.enum(betaSchedules).default('linear'),
  trainedBetas: z.array(z.number()).nullable().default(null),
};

/** Where diffusers' defaults are Stable Diffusion's betas instead. */
export const latentBetaFields = {
  betaStart: z.number().positive().default(0.00085),
  betaEnd: z.number().positive().default(0.012),
};

export const spacings = ['linspace', 'leading', 'trailing'] as const;
export type Spacing = (typeof spacings)[number];
export const spacingFields = (spacing: Spacing) => ({
  timestepSpacing: z.enum(spacings).default(spacing),
  stepsOffset: z.number().int().min(0).default(0),
});

export const zeroSnrField = { rescaleBetasZeroSnr: z.boolean().default(false) };

export const thresholdFields = {
  thresholding: z.boolean().default(false),
  dynamicThresholdingRatio: z.number().min(0).max(1).default(0.995),
  sampleMaxValue: z.number().min(1).default(1),
};

export const clipFields = (clip: boolean) => ({
  clipSample: z.boolean().default(clip),
  clipSampleRange: z.number().positive().default(1),
});

/** Replacements of the evenly spaced sigmas; at most one may be on. */
export const sigmaSpacingFields = {
  useKarrasSigmas: z.boolean().nullable().default(false),
  useExponentialSigmas: z.boolean().nullable().default(false),
  useBetaSigmas: z.boolean().nullable().default(false),
};

export const finalSigmaField = z.enum(['zero', 'sigma_min']).default('zero');

/** The name of a relative's algorithm falls back to DPM-Solver++, as in diffusers, so that configs can be swapped. */
export const ownAlgorithm = <A extends string>(name: A): Exclude<A, 'deis'> =>
  (name === 'deis' ? 'dpmsolver++' : name) as Exclude<A, 'deis'>;
export const solverTypeField = z
  .enum(['midpoint', 'heun', 'logrho', 'bh1', 'bh2'])
  .default('midpoint')
  .transform((name) => (name === 'heun' ? name : 'midpoint'));

interface ClippingConfig {
  readonly thresholding?: boolean;
  readonly dynamicThresholdingRatio?: number;
  readonly sampleMaxValue?: number;
  readonly clipSample?: boolean;
  readonly clipSampleRange?: number;
}

/** Thresholding wins over clipping, as in diffusers. */
export function clippingOf(config: ClippingConfig): Clipping {
  if (config.thresholding)
    return { kind: 'threshold', ratio: config.dynamicThresholdingRatio ?? 0.995, max: config.sampleMaxValue ?? 1 };
  return config.clipSample ? { kind: 'clip', range: config.clipSampleRange ?? 1 } : { kind: 'none' };
}
