import type { Batch } from '../data/index.js';
import { noiseSchedule, type Process, RectifiedFlow, VariancePreserving } from '../diffusion/index.js';
import { EncoderUNet } from '../models/index.js';
import type { TrainConfig } from './config.js';
import { learningBatches } from './coupling.js';
import { type LearningBatch, LearningSession, type TrainEvent } from './learning.js';
import { noisyClassification } from './noisyClassifier.js';
import { type Objective, rectifiedFlow, variancePreserving } from './objective.js';
import { pathFlow } from './pathFlow.js';
import { type NoisyImageModel, noisyImageLearner } from './step.js';

/** A model of noisy images in training. The averaged weights are what checkpoints are sampled from. */
export class TrainingSession extends LearningSession {
  readonly objective: Objective;

  constructor(
    readonly model: NoisyImageModel,
    readonly config: TrainConfig,
  ) {
    const process = objectiveOf(config);
    const objective = model instanceof EncoderUNet ? noisyClassification(process) : process;
    const { conditionDropout } = config;
    super((rng) => noisyImageLearner({ model, objective, rng, conditionDropout }), config, model.namedVariables());
    this.objective = objective;
  }

  /** As {@link learn}, from images and classes. */
  run(batches: AsyncIterable<Batch>, signal?: AbortSignal): AsyncGenerator<TrainEvent, void, undefined> {
    return this.learn(learningBatches(batches, this.config), signal);
  }
}

/** What {@link noisyImageLearner} takes. */
export async function* imagesAndLabels(batches: AsyncIterable<Batch>): AsyncGenerator<LearningBatch, void, undefined> {
  for await (const { images, labels, next } of batches) yield { arrays: { images, labels }, next };
}

/** The part of a run's settings that says what is noised how. */
export type NoiseSettings = Pick<
  TrainConfig,
  'predict' | 'betaSchedule' | 'trainTimesteps' | 'zeroTerminalSnr' | 'learnVariance'
>;

const scheduleOf = ({ betaSchedule, trainTimesteps, zeroTerminalSnr }: NoiseSettings) => ({
  betaSchedule,
  numTrainTimesteps: trainTimesteps,
  rescaleBetasZeroSnr: zeroTerminalSnr,
});

/** The noise that a run trains on. */
export const processOf = (config: TrainConfig): Process =>
  config.predict === 'flow' ? new RectifiedFlow() : new VariancePreserving(noiseSchedule(scheduleOf(config)));

function objectiveOf(config: TrainConfig): Objective {
  if (config.predict === 'flow' && config.learnVariance)
    throw new TypeError('training: learnVariance does not go with predict flow, which has no variance to learn');
  const { coupling, path, pathPower, bridgeSigma, timestepDensity: density, flowWeighting: weighting } = config;
  for (const [field, value, plain] of [
    ['coupling', coupling, 'random'],
    ['path', path, 'cond-ot'],
  ])
    if (config.predict !== 'flow' && value !== plain)
      throw new TypeError(`training: ${field} ${value} is for predict flow, not for ${config.predict}`);
  if (path !== 'cond-ot' && weighting !== 'none')
    throw new TypeError(`training: flowWeighting ${weighting} is for the path cond-ot, not for ${path}`);
  if (path !== 'cond-ot') return pathFlow({ path, pathPower, bridgeSigma, density });
  if (config.predict === 'flow') return rectifiedFlow({ density, weighting });
  return variancePreserving({
    predictionType: config.predict,
    schedule: scheduleOf(config),
    minSnrGamma: config.minSnrGamma,
    learnVariance: config.learnVariance,
  });
}
