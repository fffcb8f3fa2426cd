import { join } from 'node:path';
import { z } from 'zod';
import { loadImageDistribution } from '../models/node/index.js';
import { loadImageFlow } from '../pipelines/node/index.js';
import type { Part } from './infoParts.js';
import { kindOfRun } from './otherTrainers.js';

/** The model of a run that has a likelihood: a flow, or an autoregressive one. @returns undefined for other runs. */
export async function densityParts(run: string): Promise<Part[] | undefined> {
  const kind = await kindOfRun(run);
  if (kind !== 'flow' && kind !== 'autoregressive') return undefined;
  const name = kind === 'flow' ? 'flow' : 'distribution';
  const load = kind === 'flow' ? loadImageFlow : loadImageDistribution;
  const { model, config } = await load(join(run, name));
  const { model: className, modelConfig, ...format } = config;
  return [{ name, className, parameters: model.parameterCount(), config: { ...format, ...modelConfig } }];
}

/** A line of such a run's metrics. */
export const likelihoodMetric = z.looseObject({
  step: z.number(),
  split: z.string(),
  images: z.number(),
  logLikelihood: z.number(),
  bitsPerDim: z.number().optional(),
});

/** What the last one says. */
export function likelihoodLine({ step, split, images, logLikelihood, bitsPerDim }: z.output<typeof likelihoodMetric>) {
  const bits = bitsPerDim === undefined ? '' : `${bitsPerDim.toFixed(3)} bits per dimension, `;
  return `log p(x) ${bits}${logLikelihood.toFixed(2)} nats  (after step ${step}; ${images} ${split} pictures)`;
}
