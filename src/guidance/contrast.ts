import { type Tensor, where } from '../tensor/index.js';
import {
  at,
  type Branch,
  checkInterval,
  checkRescale,
  type GuidanceOptions,
  type Guided,
  type Guider,
  inputAt,
  isInside,
  negative,
  positive,
  type ScaleConvention,
  type Schedule,
  type StepInfo,
} from './guider.js';
import { rescaleGuidance } from './rescale.js';

/** What {@link contrast} hands to a formula; predictions [N, C, ...], numbers as tensors [1] that broadcast. */
export interface Contrasted {
  readonly conditional: Tensor;
  readonly other: Tensor;
  /** The scale in the 'paper' convention: 0 leaves the conditional prediction as it is. */
  readonly weight: Tensor;
  /** Those of `numbers`. */
  readonly numbers: readonly Tensor[];
  readonly state: readonly Tensor[];
}

export interface Contrast {
  /** The prediction to move away from; default: the negative condition's. */
  readonly other?: Branch;
  /** The convention of the literature; default 'standard'. */
  readonly convention?: ScaleConvention;
  /** Further numbers that the formula reads. */
  readonly numbers?: (step: StepInfo) => readonly number[];
  readonly slots?: number;
  /** The guided prediction, and the new state where there is one. Default: conditional + weight (conditional - other). */
  readonly formula?: (p: Contrasted) => Tensor | Guided;
}

/**
 * A guider that sets the conditional prediction against one other: off, and without cost, where the scale leaves the
 * conditional prediction as it is or the interval says so.
 * @throws RangeError for an interval that is not rising inside [0, 1], or a rescale outside [0, 1].
 */
export function contrast(scale: Schedule, options: GuidanceOptions, rule: Contrast = {}): Guider {
  const { interval, rescale = 0, channels, convention = rule.convention ?? 'standard' } = options;
  const { other = negative, slots = 0, numbers = () => [] } = rule;
  const { formula = ({ conditional, weight, other }) => conditional.add(weight.mul(conditional.sub(other))) } = rule;
  checkInterval(interval);
  checkRescale(rescale);
  const weightAt = (step: StepInfo) =>
    isInside(interval, step) ? at(scale, step) - (convention === 'standard' ? 1 : 0) : 0;
  const inputs = (step: StepInfo) => [weightAt(step), Number(weightAt(step) !== 0), rescale, ...numbers(step)];
  return {
    channels,
    slots,
    inputs,
    inputCount: inputs({ index: 0, total: 1, timestep: 0 }).length,
    branches: (step) => (weightAt(step) === 0 ? [positive] : [positive, other]),
    combine(predictions, inputs, state) {
      const [conditional, second] = [predictions.get('positive')!, predictions.get(other.name)];
      if (!second) return { prediction: conditional, state };
      const count = inputs.shape[0] - 3;
      const given = Array.from({ length: count }, (_, i) => inputAt(inputs, 3 + i));
      const result = formula({ conditional, other: second, weight: inputAt(inputs, 0), numbers: given, state });
      const guided: Guided = 'prediction' in result ? result : { prediction: result, state };
      // Another guider may have asked for this branch at a step where this one is off.
      const on = inputAt(inputs, 1).greater(0);
      const prediction = where(on, guided.prediction, conditional);
      return {
        prediction: rescale === 0 ? prediction : rescaleGuidance(prediction, conditional, inputAt(inputs, 2)),
        state: guided.state.map((next, i) => (next === state[i] ? next : where(on, next, state[i]))),
      };
    },
  };
}
