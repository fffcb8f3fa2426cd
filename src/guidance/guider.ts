import type { PredictionType } from '../diffusion/index.js';
import type { Module, Perturbation } from '../nn/index.js';
import { concat, type Tensor } from '../tensor/index.js';

/** Where a sampling run stands. */
export interface StepInfo {
  /** Which call of the denoiser this is, from 0. */
  readonly index: number;
  /** How many calls the run has. */
  readonly total: number;
  /** What the denoiser is told the time is. */
  readonly timestep: number;
  /**
   * How far a prediction moves when the score does: guidance by a gradient g of a log-probability, taken at what the
   * denoiser sees, adds `predictionPerScore` g to it. Known to a sampler; 0 where x is nothing but noise.
   */
  readonly predictionPerScore?: number;
  /** What the denoiser predicts, where the sampler says so. */
  readonly predictionType?: PredictionType;
}

/** What a prediction is told besides x and the time, by name: labels, text ... */
export type Condition = Readonly<Record<string, Tensor | readonly Tensor[]>>;

/** One prediction that a guider asks for. */
export interface Branch {
  /** Equal names mean the same prediction, which is then computed once. */
  readonly name: string;
  /**
   * Which condition the denoiser gets: `positive`, the wanted one; `negative`, the one to move away from (the null one
   * by default); or the name of a further one, which the caller of the sampler gives.
   */
  readonly condition: string;
  /** Which layers of the denoiser depart from it, and how; `size` is the sample's [height, width]. */
  readonly perturb?: (model: Module, size: readonly [height: number, width: number]) => Perturbations;
  /**
   * Computed in the denoiser's place, as a graph: a classifier's gradient, say.
   * x [N, C, ...] is what the denoiser sees, `timestep` [N] what it is told; the result is shaped like x.
   */
  readonly predict?: (x: Tensor, timestep: Tensor, condition: Condition) => Tensor;
}

export type Perturbations = ReadonlyMap<Module, Perturbation>;

export const positive: Branch = { name: 'positive', condition: 'positive' };
export const negative: Branch = { name: 'negative', condition: 'negative' };

export type Predictions = ReadonlyMap<string, Tensor>;

/** What a guider makes of a step's predictions; a type, so that compiled functions can return it. */
export type Guided = {
  readonly prediction: Tensor;
  readonly state: readonly Tensor[];
  /** Moves the mean of a sampler that draws from a normal distribution by its variance times this, [N, C, ...]. */
  readonly gradient?: Tensor;
};

/**
 * Which predictions a step needs and how to combine them. It knows neither the sampler nor the model. Everything that
 * changes from step to step goes through `branches` (few variants, each one graph) or `inputs` (numbers fed to it).
 */
export interface Guider {
  /** The predictions this step needs, at least one. */
  branches(step: StepInfo): readonly Branch[];
  /** The numbers that `combine` reads at this step, `inputCount` of them. */
  inputs(step: StepInfo): readonly number[];
  readonly inputCount: number;
  /** How many tensors of a prediction's shape it carries from step to step (momentum); they start as zeros. */
  readonly slots: number;
  /** How many leading channels to guide; the rest is taken from the positive branch. Default: the sample's. */
  readonly channels?: number;
  /** Number of classes that the guidance itself knows; the denoiser, if it takes any, must have as many. */
  readonly numClasses?: number;
  /** The graph: `predictions` by branch name (only those asked for), `inputs` [inputCount], `state` one per slot. */
  combine(predictions: Predictions, inputs: Tensor, state: readonly Tensor[]): Guided;
}

/**
 * A guider's answer on whole predictions [N, C, ...]: channels that are not guided, such as a learned variance, come
 * from the positive branch (from the only branch where that was not asked for).
 * @param sampleChannels C of the sample; predictions may have more channels
 */
export function guidePrediction(
  guider: Guider,
  predictions: Predictions,
  inputs: Tensor,
  state: readonly Tensor[],
  sampleChannels: number,
): Guided {
  const whole = predictions.get('positive') ?? [...predictions.values()][0];
  if (!whole) throw new RangeError('guidance: expected at least one prediction, got none');
  const count = guider.channels ?? sampleChannels;
  const channels = whole.shape[1];
  if (count > channels) throw new RangeError(`guidance: ${count} channels to guide, the prediction has ${channels}`);
  if (count === channels) return guider.combine(predictions, inputs, state);
  const guided = new Map([...predictions].map(([name, p]) => [name, p.slice(1, 0, count)]));
  const { prediction, ...rest } = guider.combine(guided, inputs, state);
  return { prediction: concat([prediction, whole.slice(1, count, channels)], 1), ...rest };
}

/** When guidance is on: shares [from, to) of the run's steps, cut down to whole steps, or a rule of your own. */
export type Interval = readonly [from: number, to: number] | ((step: StepInfo) => boolean);

export function isInside(interval: Interval | undefined, step: StepInfo): boolean {
  if (interval === undefined) return true;
  if (typeof interval === 'function') return interval(step);
  const [from, to] = interval;
  return step.index >= Math.floor(from * step.total) && step.index < Math.floor(to * step.total);
}

export function checkInterval(interval: Interval | undefined): void {
  if (interval === undefined || typeof interval === 'function') return;
  const [from, to] = interval;
  if (!(from >= 0 && from < to && to <= 1))
    throw new RangeError(`guidance: interval [${from}, ${to}] must be rising and inside [0, 1]`);
}

/** What nearly every guider takes. */
export interface GuidanceOptions {
  /** Outside it the conditional prediction is used alone and nothing else computed (Kynkäänniemi et al. 2024). */
  readonly interval?: Interval;
  /** How much of {@link rescaleGuidance} to apply, 0 to 1; default 0. */
  readonly rescale?: number;
  /** Guide only this many leading channels (the original DiT code guides 3); default all of the sample's. */
  readonly channels?: number;
  /** What the scale means; each guider's default is the one of its literature. */
  readonly convention?: ScaleConvention;
}

/**
 * 'standard': the prediction to move away from is at 0, the conditional one at 1. 'paper' (classifier-free guidance, Ho
 * and Salimans 2022, and perturbed attention, Ahn et al. 2024): the conditional one is at 0, so w = scale - 1.
 */
export type ScaleConvention = 'standard' | 'paper';

export function checkRescale(rescale: number): void {
  if (!(rescale >= 0 && rescale <= 1)) throw new RangeError(`guidance: rescale must lie in [0, 1], got ${rescale}`);
}

/** A number, or one for each step. */
export type Schedule = number | ((step: StepInfo) => number);
export const at = (schedule: Schedule, step: StepInfo): number =>
  typeof schedule === 'number' ? schedule : schedule(step);

/** One of the guider's input numbers, as a tensor [1] that broadcasts. */
export const inputAt = (inputs: Tensor, i: number): Tensor => inputs.slice(0, i, i + 1);
