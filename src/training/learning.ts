import { type NdArray, ndarray } from '../array/index.js';
import type { DataPosition } from '../data/index.js';
import { Generator } from '../random/index.js';
import { Variable } from '../tensor/index.js';
import type { TrainConfig } from './config.js';
import { emaDecay } from './ema.js';
import { adamW, type Optimizer, sgd, withoutDecay } from './optimizer.js';
import { schedule } from './schedules.js';
import { type BatchOf, type Learner, type LearningStep, learningStep } from './step.js';

/** The part of a run's settings that says how a loss is brought down. */
export interface LearningConfig
  extends Pick<
    TrainConfig,
    | 'steps'
    | 'accumulate'
    | 'seed'
    | 'optimizer'
    | 'learningRate'
    | 'lrSchedule'
    | 'lrStepRules'
    | 'warmup'
    | 'weightDecay'
    | 'betas'
    | 'momentum'
    | 'clipNorm'
    | 'device'
    | 'threads'
  > {
  /** Of the averages that are kept for use; without it there are none. */
  readonly emaDecay?: number;
}

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

/** A batch, and where the data goes on after it. */
export interface LearningBatch {
  /** The samples on axis 0; the images, or what stands for them, come first. */
  readonly arrays: BatchOf<NdArray>;
  readonly next: DataPosition;
}

/** A training under way, of any loss, with everything that its continuation depends on. */
export class LearningSession {
  readonly optimizer: Optimizer;
  /** The averaged weights, under the parameters' names; none without `emaDecay`. */
  readonly ema: ReadonlyMap<string, Variable>;
  private readonly rng: Generator;
  private readonly learning: LearningStep<BatchOf<NdArray>>;
  private readonly learningRateAt: (step: number) => number;
  private readonly stored: ReadonlyMap<string, Variable>;
  step = 0;
  position: DataPosition = { epoch: 0, index: 0 };

  /**
   * @param learnerOf gets the generator from which noise and the like are drawn.
   * @param stored what is trained together with the buffers beside it; default: the learner's parameters.
   */
  constructor(
    learnerOf: (rng: Generator) => Learner,
    private readonly settings: LearningConfig,
    stored?: ReadonlyMap<string, Variable>,
  ) {
    this.rng = new Generator(settings.seed + 1);
    const learner = learnerOf(this.rng);
    const { parameters } = learner;
    this.stored = stored ?? parameters;
    // In memory and of its own: weights that were opened are views of their files.
    for (const p of parameters.values()) p.set(copyOf(p.value));
    this.optimizer = optimizerOf(settings, parameters);
    const averaged = settings.emaDecay === undefined ? [] : [...parameters];
    this.ema = new Map(averaged.map(([name, p]) => [name, new Variable(copyOf(p.value), false, `ema.${name}`)]));
    const { lrSchedule, warmup, steps, learningRate, lrStepRules: stepRules } = settings;
    const factor = schedule(lrSchedule, { warmupSteps: warmup, totalSteps: steps, learningRate, stepRules });
    this.learningRateAt = (step) => learningRate * factor(step);
    this.learning = learningStep({
      learner,
      optimizer: this.optimizer,
      rng: this.rng,
      clipNorm: settings.clipNorm,
      accumulate: settings.accumulate,
      ema: averaged.length > 0 ? this.ema : undefined,
      compile: { device: settings.device, threads: settings.threads },
    });
  }

  /**
   * Trains until `steps`, one event per optimiser step.
   * @throws DivergedError when the loss is not finite; AbortError when the signal fires (after a whole step).
   */
  async *learn(
    batches: AsyncIterable<LearningBatch>,
    signal?: AbortSignal,
  ): AsyncGenerator<TrainEvent, void, undefined> {
    const { accumulate, steps, emaDecay: decay } = this.settings;
    let group: BatchOf<NdArray>[] = [];
    let began = performance.now();
    for await (const { arrays, next } of batches) {
      if (this.step >= steps) return;
      signal?.throwIfAborted();
      group.push(arrays);
      if (group.length < accumulate) continue;
      const learningRate = this.learningRateAt(this.step);
      const averaging = emaDecay(this.step + 1, { decay });
      const { loss, gradientNorm } = await this.learning.run(group, this.step + 1, learningRate, averaging);
      if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm))
        throw new DivergedError(diagnosis(this.step + 1, loss, gradientNorm, learningRate));
      this.step++;
      this.position = next;
      const now = performance.now();
      yield {
        step: this.step,
        loss,
        gradientNorm,
        learningRate,
        milliseconds: now - began,
        images: group.reduce((n, batch) => n + Object.values(batch)[0].shape[0], 0),
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
    const parts = { model: this.stored, optimizer: this.optimizer.state, ema: this.ema };
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

  /** What is written for use: the averaged weights where there are any, else the weights, with the buffers. */
  async averagedState(): Promise<Map<string, NdArray>> {
    const state = new Map<string, NdArray>();
    for (const [name, v] of this.stored) state.set(name, await (this.ema.get(name) ?? v).read());
    return state;
  }

  release(): Promise<void> {
    return this.learning.release();
  }
}

function optimizerOf(
  { optimizer, weightDecay, betas, momentum }: LearningConfig,
  parameters: ReadonlyMap<string, Variable>,
): Optimizer {
  return optimizer === 'sgd'
    ? sgd(parameters, { momentum, weightDecay })
    : adamW(parameters, { betas, weightDecay, exclude: withoutDecay });
}

const copyOf = ({ dtype, shape, data }: NdArray): NdArray => ({ dtype, shape, data: data.slice() }) as NdArray;

function diagnosis(step: number, loss: number, norm: number, learningRate: number): string {
  const what = Number.isFinite(loss) ? `the gradients are not finite (norm ${norm})` : `the loss is ${loss}`;
  return `training diverged at step ${step}: ${what} at learning rate ${learningRate.toPrecision(3)}. Lower the learning rate, lengthen the warmup, or clip the gradients (--clip-norm 1).`;
}
