import { type NdArray, ndarray } from '../array/index.js';
import { batches, type Dataset } from '../data/index.js';
import type { ImageClassifier, VggClassifier } from '../models/index.js';
import { inTraining } from '../nn/index.js';
import { type CompileOptions, compile, gatherElements, gradients, logSoftmax, type Tensor } from '../tensor/index.js';
import { adamW, withoutDecay } from './optimizer.js';
import { schedule } from './schedules.js';

/** Mean negative log-likelihood of classes [N] (integers) under logits [N, classes]. */
export const crossEntropy = (logits: Tensor, labels: Tensor): Tensor =>
  gatherElements(logSoftmax(logits, 1), labels.unsqueeze(1), 1).mean().neg();

export interface ClassifierTrainingOptions {
  /** Default 4. */
  readonly epochs?: number;
  /** Default 128. */
  readonly batch?: number;
  /** The highest, reached after a tenth of the steps, from where it falls to 0 as a cosine; default 3e-3. */
  readonly learningRate?: number;
  /** Default 0.05. */
  readonly weightDecay?: number;
  readonly seed?: number;
  /** Mirror every second image; default false. */
  readonly flip?: boolean;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
}

export interface ClassifierEvent {
  /** 1..steps. */
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly images: number;
  readonly milliseconds: number;
}

/**
 * Trains a classifier with AdamW, one event per step.
 * @throws AbortError when the signal fires.
 */
export async function* trainClassifier(
  classifier: ImageClassifier | VggClassifier,
  dataset: Dataset,
  options: ClassifierTrainingOptions = {},
): AsyncGenerator<ClassifierEvent, void, undefined> {
  const { epochs = 4, batch = 128, learningRate = 3e-3, weightDecay = 0.05, seed = 0, flip = false, signal } = options;
  const parameters = classifier.namedParameters();
  const optimizer = adamW(parameters, { weightDecay, exclude: withoutDecay });
  const update = compile((images: Tensor, labels: Tensor, numbers: readonly Tensor[]) => {
    const loss = inTraining(() => crossEntropy(classifier.logits(classifier.features(images)), labels));
    optimizer.update(gradients(loss, [...parameters.values()]), numbers);
    return { loss };
  }, options.compile);

  const steps = Math.floor(dataset.length / batch) * epochs;
  const factor = schedule('cosine', { warmupSteps: Math.round(steps / 10), totalSteps: steps, learningRate });
  let step = 0;
  let began = performance.now();
  try {
    for await (const { images, labels } of batches(dataset, { batch, seed, flip, epochs })) {
      signal?.throwIfAborted();
      const numbers = optimizer.hyperparameters(step + 1, learningRate * factor(step)).map((x) => ndarray([x], []));
      const { loss } = await update(images, labels, numbers);
      step++;
      const now = performance.now();
      yield { step, steps, loss: Number(loss.data[0]), images: batch, milliseconds: now - began };
      began = now;
    }
  } finally {
    await update.release();
  }
}

/** What a classifier makes of images. */
export interface Classified {
  /** [N, features] */
  readonly features: NdArray<'float32'>;
  /** The most likely class of each. */
  readonly classes: Int32Array;
  /** Its probability. */
  readonly confidence: Float32Array;
}

/** Features and classes of images, batch by batch. @param sources images [n, C, H, W] in [-1, 1]; equal n are fastest. */
export async function classify(
  classifier: ImageClassifier | VggClassifier,
  sources: Iterable<NdArray> | AsyncIterable<NdArray>,
  options: CompileOptions = {},
): Promise<Classified> {
  const run = compile(
    (images: Tensor) => {
      const features = classifier.features(images);
      const probabilities = classifier.logits(features).softmax(1);
      return { features, classes: probabilities.argmax(1), confidence: probabilities.max(1) };
    },
    { freeze: true, ...options },
  );
  const features: Float32Array[] = [];
  const classes: number[] = [];
  const confidence: number[] = [];
  try {
    for await (const images of sources) {
      const result = await run(images);
      features.push(result.features.data as Float32Array);
      classes.push(...Array.from(result.classes.data, Number));
      confidence.push(...Array.from(result.confidence.data, Number));
    }
  } finally {
    await run.release();
  }
  const width = classifier.head.weight.shape[1];
  const all = new Float32Array(classes.length * width);
  let at = 0;
  for (const part of features) {
    all.set(part, at);
    at += part.length;
  }
  return {
    features: ndarray(all, [classes.length, width]),
    classes: Int32Array.from(classes),
    confidence: Float32Array.from(confidence),
  };
}
