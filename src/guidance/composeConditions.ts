import { where } from '../tensor/index.js';
import {
  at,
  type Branch,
  checkInterval,
  checkRescale,
  type GuidanceOptions,
  type Guider,
  inputAt,
  isInside,
  negative,
  positive,
  type Schedule,
  type StepInfo,
} from './guider.js';
import { rescaleGuidance } from './rescale.js';

/**
 * Several conditions at once (Liu et al. 2022): ε(x, ∅) + s Σ wᵢ (ε(x, yᵢ) - ε(x, ∅)). A negative weight says "not".
 * @param weights by the names of conditions that sampling is given: `{ positive: 1, b: 0.5, c: -1 }`.
 * @throws RangeError without a condition, for the condition `negative`, or an interval or rescale that makes no sense.
 */
export function composeConditions(
  scale: Schedule,
  weights: Readonly<Record<string, number>>,
  options: Omit<GuidanceOptions, 'convention'> = {},
): Guider {
  const { interval, rescale = 0, channels } = options;
  const names = Object.keys(weights);
  if (names.length === 0) throw new RangeError('composeConditions: expected at least one weight, got none');
  if (names.includes('negative'))
    throw new RangeError(
      "composeConditions: 'negative' is what the others are set against; name what is unwanted otherwise",
    );
  checkInterval(interval);
  checkRescale(rescale);
  const isOn = (step: StepInfo) => isInside(interval, step);
  const others = names.filter((name) => name !== 'positive').map(branchOf);
  return {
    channels,
    slots: 0,
    inputCount: 2 + names.length,
    inputs: (step) => [Number(isOn(step)), rescale, ...names.map((name) => at(scale, step) * weights[name])],
    branches: (step) => (isOn(step) ? [positive, ...others, negative] : [positive]),
    combine(predictions, inputs, state) {
      const conditional = predictions.get('positive')!;
      const unconditional = predictions.get('negative');
      const wanted = names.map((name) => (name === 'positive' ? conditional : predictions.get(branchOf(name).name)));
      if (!unconditional || wanted.includes(undefined)) return { prediction: conditional, state };
      const guided = wanted.reduce(
        (sum, prediction, i) => sum!.add(inputAt(inputs, 2 + i).mul(prediction!.sub(unconditional))),
        unconditional,
      )!;
      const rescaled = rescale === 0 ? guided : rescaleGuidance(guided, conditional, inputAt(inputs, 1));
      return { prediction: where(inputAt(inputs, 0).greater(0), rescaled, conditional), state };
    },
  };
}

const branchOf = (condition: string): Branch => ({ name: `condition ${condition}`, condition });
