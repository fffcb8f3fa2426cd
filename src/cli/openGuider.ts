import type { Guider } from '../guidance/index.js';
import { ClassConditionalPipeline, checkGuides, loadNoisyClassifier } from '../pipelines/node/index.js';
import type { Sampler } from '../samplers/index.js';
import { UsageError } from './exitCodes.js';
import { parseGuidance } from './guidance.js';

/** Runs that guidance may ask besides the model. */
export interface GuidingRuns {
  /** For autoguidance. */
  readonly weaker?: string;
  /** Of noisy pictures, for classifier guidance. */
  readonly classifier?: string;
}

/**
 * The guider that `--guidance` names, with the models of its own.
 * @throws UsageError for a wrong text or a guider that the model cannot follow, Error for a run that cannot be opened, RangeError for one that does not fit.
 */
export async function openGuider(
  text: string,
  pipeline: ClassConditionalPipeline,
  sampler: Sampler,
  runs: GuidingRuns,
): Promise<Guider> {
  return parseGuidance(text, await guidingModels(pipeline, sampler, runs));
}

/** The same for many texts, of which not every one asks every model: a reader of them. */
export async function guiderReader(
  pipeline: ClassConditionalPipeline,
  sampler: Sampler,
  runs: GuidingRuns,
): Promise<(text: string) => Guider> {
  const { weaker, classifier, unconditional } = await guidingModels(pipeline, sampler, runs);
  const asks = (text: string, name: string) => text.split(',').some((part) => part.trim().startsWith(`${name}=`));
  return (text) =>
    parseGuidance(text, {
      unconditional,
      ...(asks(text, 'auto') && { weaker }),
      ...(asks(text, 'classifier') && { classifier }),
    });
}

async function guidingModels(
  { model, knowsNullClass, coupled }: ClassConditionalPipeline,
  sampler: Sampler,
  { weaker, classifier }: GuidingRuns,
) {
  if (classifier && coupled)
    throw new UsageError(
      `a classifier cannot guide this model: it moves the score, which the velocity of a flow trained on coupled pairs of noise and data does not give; use cfg, pag or slg`,
    );
  const stored = classifier ? await loadNoisyClassifier(classifier) : undefined;
  if (stored) checkGuides(stored, model, sampler);
  return {
    weaker: weaker ? (await ClassConditionalPipeline.fromPretrained(weaker)).model : undefined,
    classifier: stored?.classifier,
    unconditional: model.nullClass !== undefined && knowsNullClass,
  };
}
