import { type NdArray, ndarray } from '../array/index.js';
import type { Batch, DataPosition } from '../data/index.js';
import { noiseSchedule, type Process, RectifiedFlow, VariancePreserving } from '../diffusion/index.js';
import { EncoderUNet } from '../models/index.js';
import { Generator } from '../random/index.js';
import { Variable } from '../tensor/index.js';
import type { TrainConfig } from './config.js';
import { emaDecay } from './ema.js';
import { noisyClassification } from './noisyClassifier.js';
import { type Objective, rectifiedFlow, variancePreserving } from './objective.js';
import { adamW, type Optimizer, sgd, withoutDecay } from './optimizer.js';
import { schedule } from './schedules.js';
import { type NoisyImageModel, type TrainingStep, trainingStep } from './step.js';

export interface TrainEvent {
  /** Optimiser steps done, 1..steps. */
  readonly step: number;
  readonly loss: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Milliseconds of this step, reading the data included. */
  readonly milliseconds: number;
  readonly images: number;
}

/** Training diverged: nothing of the failed step was saved. */
export class DivergedError extends Error {
  override readonly name = 'DivergedError';
}

/** A model in training with everything that its continuation depends on. */
export class TrainingSession {
  readonly objective: Objective;
  readonly optimizer: Optimizer;
  /** The averaged weights, under the parameters' names: what checkpoints are sampled from. */
  readonly ema: ReadonlyMap<string, Variable>;
  private readonly rng: Generator;
  private readonly trainStep: TrainingStep;
  private readonly learningRateAt: (step: number) => number;
  step = 0;
  position: DataPosition = { epoch: 0, index: 0 };

  constructor(
    readonly model: NoisyImageModel,
    readonly config: TrainConfig,
  ) {
    const objective = objectiveOf(config);
    this.objective = model instanceof EncoderUNet ? noisyClassification(objective) : objective;
    const parameters = model.namedParameters();
    this.optimizer = optimizerOf(config, parameters);
    this.ema = new Map([...parameters].map(([name, p]) => [name, new Variable(copyOf(p.value), false, `ema.${name}`)]));
    this.rng = new Generator(config.seed + 1);
    const { lrSchedule, warmup, steps, learningRate, lrStepRules: stepRules } = config;
    const factor = schedule(lrSchedule, { warmupSteps: warmup, totalSteps: steps, learningRate, stepRules });
    this.learningRateAt = (step) => learningRate * factor(step);
    this.trainStep = trainingStep({
      model,
      objective: this.objective,
      optimizer: this.optimizer,
      rng: this.rng,
      conditionDropout: config.conditionDropout,
      clipNorm: config.clipNorm,
      accumulate: config.accumulate,
      ema: this.ema,
      compile: { device: config.device, threads: config.threads },
    });
  }

  /**
   * Trains until `config.steps`, one event per optimiser step.
   * @throws DivergedError when the loss is not finite; AbortError when the signal fires (after a whole step).
   */
  async *run(batches: AsyncIterable<Batch>, signal?: AbortSignal): AsyncGenerator<TrainEvent, void, undefined> {
    const { accumulate, steps, emaDecay: decay } = this.config;
    let group: Batch[] = [];
    let began = performance.now();
    for await (const batch of batches) {
      if (this.step >= steps) return;
      signal?.throwIfAborted();
      group.push(batch);
      if (group.length < accumulate) continue;
      const learningRate = this.learningRateAt(this.step);
      const { loss, gradientNorm } = await this.trainStep.run(
        group,
        this.step + 1,
        learningRate,
        emaDecay(this.step + 1, { decay }),
      );
      if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm))
        throw new DivergedError(diagnosis(this.step + 1, loss, gradientNorm, learningRate));
      this.step++;
      this.position = batch.next;
      const now = performance.now();
      yield {
        step: this.step,
        loss,
        gradientNorm,
        learningRate,
        milliseconds: now - began,
        images: group.reduce((n, b) => n + b.images.shape[0], 0),
      };
      began = performance.now();
      group = [];
      if (this.step >= steps) return;
    }
  }

  /** Everything a continuation needs beside `step` and `position`, as arrays; fetched from the GPU if it is there. */
  async state(): Promise<Map<string, NdArray>> {
    const state = new Map<string, NdArray>();
    for (const [name, v] of this.variables()) state.set(name, await v.read());
    return state.set('generator', this.generatorState());
  }

  private variables(): Map<string, Variable> {
    const parts = { model: this.model.namedVariables(), optimizer: this.optimizer.state, ema: this.ema };
    return new Map(
      Object.entries(parts).flatMap(([part, variables]) =>
        [...variables].map(([name, v]) => [`${part}.${name}`, v] as const),
      ),
    );
  }

  private generatorState(): NdArray {
    return ndarray(this.rng.state() as Uint8Array<ArrayBuffer>, undefined, 'uint8');
  }

  /** @throws Error when the arrays are not those of this run's model and optimiser; then nothing is changed. */
  restore(state: ReadonlyMap<string, NdArray>, step: number, position: DataPosition): void {
    const variables = this.variables();
    for (const [name, { shape, dtype }] of [...variables, ['generator', this.generatorState()] as const]) {
      const given = state.get(name);
      if (!given) throw new Error(`training state: ${name} is missing`);
      if (`${given.shape} ${given.dtype}` !== `${shape} ${dtype}`)
        throw new Error(`training state: ${name} is ${given.dtype} [${given.shape}], expected ${dtype} [${shape}]`);
    }
    for (const [name, v] of variables) v.set(copyOf(state.get(name)!));
    this.rng.setState(state.get('generator')!.data as Uint8Array);
    this.step = step;
    this.position = position;
  }

  /** The averaged weights with the model's buffers: what is written for use. */
  async averagedState(): Promise<Map<string, NdArray>> {
    const state = await this.model.readStateDict();
    for (const [name, average] of this.ema) state.set(name, await average.read());
    return state;
  }

  release(): Promise<void> {
    return this.trainStep.release();
  }
}

const scheduleOf = ({ betaSchedule, trainTimesteps, zeroTerminalSnr }: TrainConfig) => ({
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
  if (config.predict === 'flow')
    return rectifiedFlow({ density: config.timestepDensity, weighting: config.flowWeighting });
  return variancePreserving({
    predictionType: config.predict,
    schedule: scheduleOf(config),
    minSnrGamma: config.minSnrGamma,
    learnVariance: config.learnVariance,
  });
}

function optimizerOf(
  { optimizer, weightDecay, betas, momentum }: TrainConfig,
  parameters: ReadonlyMap<string, Variable>,
): Optimizer {
  return optimizer === 'sgd'
    ? sgd(parameters, { momentum, weightDecay })
    : adamW(parameters, { betas, weightDecay, exclude: withoutDecay });
}

const copyOf = (array: NdArray): NdArray => ({ ...array, data: array.data.slice() }) as NdArray;

function diagnosis(step: number, loss: number, norm: number, learningRate: number): string {
  const what = Number.isFinite(loss) ? `the gradients are not finite (norm ${norm})` : `the loss is ${loss}`;
  return `training diverged at step ${step}: ${what} at learning rate ${learningRate.toPrecision(3)}. Lower the learning rate, lengthen the warmup, or clip the gradients (--clip-norm 1).`;
}
