import { type Tensor, where } from '../tensor/index.js';
import { dot } from './cfgZeroStar.js';
import {
  at,
  checkInterval,
  checkRescale,
  type GuidanceOptions,
  type Guider,
  type Interval,
  inputAt,
  isInside,
  negative,
  positive,
  type Schedule,
  type StepInfo,
} from './guider.js';
import { fromLaplacianPyramid, laplacianPyramid } from './laplacian.js';
import { rescaleGuidance } from './rescale.js';

export interface FrequencyDecoupledOptions extends Omit<GuidanceOptions, 'interval' | 'rescale'> {
  /** One for all levels, or each level's. */
  readonly interval?: Interval | readonly Interval[];
  /** Of the picture (one number), or of each level. */
  readonly rescale?: number | readonly number[];
  /** Share of each level's update that is parallel to its conditional prediction; default 1. */
  readonly parallelWeights?: number | readonly number[];
  /** What a level's update is added to, as in {@link ApgOptions.base}; default 'conditional'. */
  readonly base?: 'conditional' | 'unconditional';
}

/**
 * Frequency-decoupled guidance (Sadat et al. 2025): classifier-free guidance of each level of a Laplacian pyramid with
 * its own scale, the finest level first; low scales for coarse levels keep colours and diversity.
 * Levels whose scale is 1 are left alone, and the picture keeps its size, neither of which holds in diffusers.
 * @throws RangeError without a scale, for lists of another length, or an interval or rescale that makes no sense.
 */
export function frequencyDecoupled(scales: readonly Schedule[], options: FrequencyDecoupledOptions = {}): Guider {
  const { channels, convention = 'standard', rescale = 0, parallelWeights = 1, base = 'conditional' } = options;
  const levels = scales.length;
  const intervals = isList(options.interval) ? options.interval : scales.map(() => options.interval as Interval);
  const parallel = typeof parallelWeights === 'number' ? scales.map(() => parallelWeights) : parallelWeights;
  const rescales = typeof rescale === 'number' ? [rescale] : rescale;
  if (levels === 0) throw new RangeError('frequencyDecoupled: expected a scale for each level, got none');
  for (const list of [intervals, parallel, typeof rescale === 'number' ? scales : rescale])
    if (list.length !== levels)
      throw new RangeError(`frequencyDecoupled: ${list.length} values for ${levels} levels, expected one each`);
  intervals.forEach(checkInterval);
  rescales.forEach(checkRescale);
  const weightsAt = (step: StepInfo) =>
    scales.map((scale, i) =>
      isInside(intervals[i], step) ? at(scale, step) - (convention === 'standard' ? 1 : 0) : 0,
    );
  const isOn = (step: StepInfo) => weightsAt(step).some((weight) => weight !== 0);
  return {
    channels,
    slots: 0,
    inputCount: 1 + levels + rescales.length,
    inputs: (step) => [Number(isOn(step)), ...weightsAt(step), ...rescales],
    branches: (step) => (isOn(step) ? [positive, negative] : [positive]),
    combine(predictions, inputs, state) {
      const [conditional, other] = [predictions.get('positive')!, predictions.get('negative')];
      if (!other) return { prediction: conditional, state };
      const [wanted, unwanted] = [conditional, other].map((x) => laplacianPyramid(x, levels));
      const guided = wanted.map((level, i) => {
        const weight = inputAt(inputs, 1 + i);
        const update = projected(level.sub(unwanted[i]), level, parallel[i]);
        const counted = unwanted[i].add(weight.add(1).mul(update));
        const result = base === 'conditional' ? level.add(weight.mul(update)) : where(weight.equal(0), level, counted);
        return typeof rescale === 'number' || rescale[i] === 0
          ? result
          : rescaleGuidance(result, level, inputAt(inputs, 1 + levels + i));
      });
      const whole = fromLaplacianPyramid(guided);
      const prediction =
        rescale === 0 || typeof rescale !== 'number'
          ? whole
          : rescaleGuidance(whole, conditional, inputAt(inputs, 1 + levels));
      return { prediction: where(inputAt(inputs, 0).greater(0), prediction, conditional), state };
    },
  };
}

/** Whether it is a list of intervals: an interval is itself a list, of two numbers. */
const isList = (interval: Interval | readonly Interval[] | undefined): interval is readonly Interval[] =>
  Array.isArray(interval) && typeof interval[0] !== 'number';

/** `update` with its part along `direction` weighted. */
function projected(update: Tensor, direction: Tensor, weight: number): Tensor {
  if (weight === 1) return update;
  const parallel = dot(update, direction).div(dot(direction, direction).maximum(1e-24)).mul(direction);
  return update.add(parallel.mul(weight - 1));
}
