import type { Guider } from '../guidance/index.js';
import { ClassConditionalPipeline, checkGuides, loadNoisyClassifier } from '../pipelines/node/index.js';
import type { Sampler } from '../samplers/index.js';
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
 * @throws UsageError for a wrong text, Error for a run that cannot be opened, RangeError for one that does not fit.
 */
export async function openGuider(
  text: string,
  { model, knowsNullClass }: ClassConditionalPipeline,
  sampler: Sampler,
  runs: GuidingRuns,
): Promise<Guider> {
  const weaker = runs.weaker ? (await ClassConditionalPipeline.fromPretrained(runs.weaker)).model : undefined;
  const stored = runs.classifier ? await loadNoisyClassifier(runs.classifier) : undefined;
  const unconditional = model.nullClass !== undefined && knowsNullClass;
  const guider = parseGuidance(text, { weaker, classifier: stored?.classifier, unconditional });
  if (stored) checkGuides(stored, model, sampler);
  return guider;
}
