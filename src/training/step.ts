import { type NdArray, ndarray, zeros } from '../array/index.js';
import { dropLabels, inTraining, type Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import {
  type CompileOptions,
  compile,
  computedNumbers,
  gradients,
  sumOverParts,
  type Tensor,
  Variable,
} from '../tensor/index.js';
import { emaUpdate } from './ema.js';
import type { NoisyBatch, Objective } from './objective.js';
import { clipGradients, type Optimizer } from './optimizer.js';

/** A model of noisy images: a denoiser, or a classifier. */
export interface NoisyImageModel extends Module {
  readonly config: object;
  /** The label that stands for "no class"; undefined when the model takes no labels. */
  readonly nullClass?: number;
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor;
}

/** Arrays or tensors of a batch by name, with the samples on axis 0. */
export type BatchOf<T> = Readonly<Record<string, T>>;

/** What a training minimises, for any model. */
export interface Learner {
  readonly parameters: ReadonlyMap<string, Variable>;
  /** The loss is one of the whole batch at once, as batch norms need it; default: of parts of it. */
  readonly whole?: boolean;
  /** Inside the traced step: noises the batch, drops conditions ... `batch` begins with the images. */
  prepare(batch: BatchOf<Tensor>): BatchOf<Tensor>;
  /** The scalar loss of what was prepared, or of a part of it. */
  loss(part: BatchOf<Tensor>): Tensor;
}

export interface LearningStepOptions {
  readonly learner: Learner;
  readonly optimizer: Optimizer;
  /** Noise, timesteps, dropped conditions and dropout are drawn from here. */
  readonly rng: Generator;
  /** Gradients are scaled down to this joint norm. */
  readonly clipNorm?: number;
  /** Batches whose gradients are averaged before one update. */
  readonly accumulate?: number;
  /** Averages of the parameters, by name, updated with each step's decay. */
  readonly ema?: ReadonlyMap<string, Variable>;
  readonly compile?: CompileOptions;
}

export interface TrainingStepOptions extends Omit<LearningStepOptions, 'learner'> {
  readonly model: NoisyImageModel;
  readonly objective: Objective;
  /** Share of samples trained without their condition (p_uncond of Ho & Salimans 2022). */
  readonly conditionDropout?: number;
}

export interface TrainingBatch {
  /** [N, C, H, W] in [-1, 1]. */
  readonly images: NdArray;
  /** Classes, int64 [N]. */
  readonly labels: NdArray;
}

export interface TrainingStepResult {
  /** Mean over the batches of the step. */
  readonly loss: number;
  /** Joint norm of the gradients before clipping. */
  readonly gradientNorm: number;
}

export interface LearningStep<Batch> {
  /** One update from `accumulate` batches. `step` counts from 1. */
  run(batches: readonly Batch[], step: number, learningRate: number, emaDecay: number): Promise<TrainingStepResult>;
  release(): Promise<void>;
}
export type TrainingStep = LearningStep<TrainingBatch>;

/** A model of noisy images learns an objective: {@link learningStep} on images and classes. */
export function trainingStep(options: TrainingStepOptions): TrainingStep {
  const step = learningStep({ ...options, learner: noisyImageLearner(options) });
  return {
    run: (batches, ...numbers) => {
      const arrays = batches.map(({ images, labels }) => ({ images, labels }));
      return step.run(arrays, ...numbers);
    },
    release: step.release,
  };
}

/** How a model of noisy images learns from `images`, `labels` and, where it is not drawn freely, `noise`, in this order. */
export function noisyImageLearner({
  model,
  objective,
  rng,
  conditionDropout = 0,
}: Pick<TrainingStepOptions, 'model' | 'objective' | 'rng' | 'conditionDropout'>): Learner {
  const dropCondition = (labels: Tensor): Tensor | undefined => {
    if (model.nullClass === undefined) return undefined;
    return conditionDropout === 0 ? labels : dropLabels(labels, model.nullClass, conditionDropout);
  };
  return {
    parameters: model.namedParameters(),
    prepare({ images, labels, noise }) {
      const batch = { ...objective.noisy(images, rng, labels, noise), label: dropCondition(labels) };
      return Object.fromEntries(Object.entries(batch).filter((entry): entry is [string, Tensor] => !!entry[1]));
    },
    loss: (part) => objective.loss(model.forward(part.x, part.timestep, part.label), part as NoisyBatch),
  };
}

/** Forward, backward and update of one training step: one compiled graph, the parameters its state. */
export function learningStep(options: LearningStepOptions): LearningStep<BatchOf<NdArray>> {
  const { learner, optimizer, rng, clipNorm, accumulate = 1, ema } = options;
  const parameters = [...learner.parameters.values()];
  const sums = accumulate > 1 ? parameters.map((p) => new Variable(zeros(p.shape), false, 'gradient sum')) : [];

  /** Loss and gradients of a batch, accumulated over parts that fit the caches. */
  const backward = (inputs: BatchOf<Tensor>) =>
    inTraining(() => {
      const batch = learner.prepare(inputs);
      const names = Object.keys(batch);
      const whole = learner.whole || (options.compile?.device && options.compile.device !== 'cpu');
      const parts = whole ? 1 : partsOf(Object.values(inputs)[0].shape[0], learner.loss(batch));
      const [loss, ...sums] = sumOverParts(
        parts,
        names.map((name) => batch[name]),
        (slices) => {
          const part = Object.fromEntries(names.map((name, i) => [name, slices[i]]));
          const share = learner.loss(part).mul(1 / parts);
          return [share, ...gradients(share, parameters)];
        },
      );
      return { loss, gradients: sums };
    }, rng);

  const gather = compile((batch: BatchOf<Tensor>) => {
    const { loss, gradients } = backward(batch);
    for (const [i, sum] of sums.entries()) sum.assign(sum.add(gradients[i]));
    return { loss };
  }, options.compile);

  const update = compile((batch: BatchOf<Tensor>, numbers: readonly Tensor[]) => {
    const { loss, gradients } = backward(batch);
    const [averaging, ...hyperparameters] = numbers;
    const mean = accumulate === 1 ? gradients : gradients.map((g, i) => g.add(sums[i]).mul(1 / accumulate));
    const { clipped, norm } = clipGradients(mean, clipNorm);
    const next = optimizer.update(clipped, hyperparameters);
    for (const sum of sums) sum.assign(sum.mul(0));
    if (ema)
      for (const [i, average] of [...ema.values()].entries()) average.assign(emaUpdate(average, next[i], averaging));
    return { loss, norm };
  }, options.compile);

  return {
    async run(batches, step, learningRate, emaDecay) {
      let loss = 0;
      for (const batch of batches.slice(0, -1)) loss += scalar((await gather(batch)).loss);
      const numbers = [1 - emaDecay, ...optimizer.hyperparameters(step, learningRate)].map((x) => ndarray([x], []));
      const last = await update(batches[batches.length - 1], numbers);
      return { loss: (loss + scalar(last.loss)) / batches.length, gradientNorm: scalar(last.norm) };
    },
    async release() {
      await gather.release();
      await update.release();
    },
  };
}

const scalar = (array: NdArray): number => Number(array.data[0]);

/** Numbers that the forward pass of one part computes: about 600 MB, if all were kept (docs/performance.md). */
const PART_NUMBERS = 160e6;

/** How many equal parts to cut a batch of n into: of those that divide it, the most that its graph asks for. */
export function partsOf(n: number, loss: Tensor, most = PART_NUMBERS): number {
  for (let parts = Math.min(n, Math.ceil(computedNumbers(loss) / most)); parts > 1; parts--)
    if (n % parts === 0) return parts;
  return 1;
}
