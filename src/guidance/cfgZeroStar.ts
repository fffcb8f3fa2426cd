import type { Tensor } from '../tensor/index.js';
import { contrast } from './contrast.js';
import { type GuidanceOptions, type Guider, inputAt, positive, type Schedule, type StepInfo } from './guider.js';

export interface CfgZeroStarOptions extends GuidanceOptions {
  /** For so many steps the prediction is zero. Default: 1 for flow models, for which the paper has it, else 0. */
  readonly zeroInitSteps?: number;
}

/**
 * CFG-Zero* (Fan et al. 2025): classifier-free guidance away from α ε(x, ∅), α = ⟨ε(x, y), ε(x, ∅)⟩ / |ε(x, ∅)|² per
 * sample, after a first step of zeros. Unlike in diffusers, `rescale` leaves those zeros alone.
 * @throws RangeError for an interval or rescale that makes no sense.
 */
export function cfgZeroStar(scale: Schedule, options: CfgZeroStarOptions = {}): Guider {
  const inner = contrast(scale, options, {
    formula({ conditional, other, weight }) {
      const alpha = dot(conditional, other).div(dot(other, other).add(1e-8));
      return conditional.add(weight.mul(conditional.sub(alpha.mul(other))));
    },
  });
  const isZero = ({ index, predictionType = 'flow' }: StepInfo) =>
    index < (options.zeroInitSteps ?? Number(predictionType === 'flow'));
  return {
    ...inner,
    branches: (step) => (isZero(step) ? [positive] : inner.branches(step)),
    inputs: (step) => [Number(!isZero(step)), ...inner.inputs(step)],
    inputCount: 1 + inner.inputCount,
    combine(predictions, inputs, state) {
      const own = inner.combine(predictions, inputs.slice(0, 1), state);
      return { ...own, prediction: own.prediction.mul(inputAt(inputs, 0)) };
    },
  };
}

/** ⟨a, b⟩ of each sample, or along some axes: summed axes stay, as 1. */
export const dot = (a: Tensor, b: Tensor, axes?: readonly number[]): Tensor =>
  a.mul(b).sum([...(axes ?? a.shape.map((_, axis) => axis).slice(1))], true);
