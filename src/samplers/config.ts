import { z } from 'zod';
import { betaSchedules, type PredictionType } from '../diffusion/index.js';
import type { Clipping } from './plan.js';

/** What the sampler's model predicts, under diffusers' names. */
const predictionNames = {
  epsilon: 'epsilon',
  sample: 'x0',
  v_prediction: 'v',
  flow_prediction: 'flow',
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

/**
 * Parses with a schema that allows no unknown keys.
 * @throws TypeError `DDIMScheduler: betaSchedule: expected one of ..., got "foo"`, one line per wrong field.
 */
export function parseFields<S extends z.ZodType>(owner: string, schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const lines = result.error.issues.map((issue) => {
    const path = issue.path.map(String);
    const got = path.reduce<unknown>((inner, key) => (inner as Record<string, unknown> | undefined)?.[key], value);
    const came = issue.code === 'unrecognized_keys' ? '' : `, got ${JSON.stringify(got) ?? 'nothing'}`;
    return `${[owner, ...path].join(': ')}: ${issue.message.replace(/^Invalid (option|input): /, '')}${came}`;
  });
  throw new TypeError(lines.join('\n'));
}

export const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
export const camelCase = (name: string): string =>
  name.replace(/(?<=.)_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

const notNumbers: Record<string, number> = { Infinity, '-Infinity': -Infinity };

/** Reads the JSON of a diffusers config, in which Python may have written a bare Infinity. */
export function parseConfigText(text: string): Record<string, unknown> {
  const quoted = text.replace(/(:\s*)(-?Infinity)(?=\s*[,}])/g, '$1"$2"');
  const value: unknown = JSON.parse(quoted, (_, item) =>
    typeof item === 'string' ? (notNumbers[item] ?? item) : item,
  );
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`scheduler config: expected a JSON object, got ${text.slice(0, 40)}`);
  return value as Record<string, unknown>;
}

/** Writes a config as Python's json does, so that diffusers reads it back. */
export const configText = (config: Record<string, unknown>): string =>
  `${JSON.stringify(config, (_, item) => (item === Infinity || item === -Infinity ? String(item) : item), 2).replace(/"(-?Infinity)"/g, '$1')}\n`;
