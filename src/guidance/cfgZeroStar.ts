import { type Tensor, zerosLike } from '../tensor/index.js';
import { contrast } from './contrast.js';
import { type Branch, type GuidanceOptions, type Guider, positive, type Schedule, type StepInfo } from './guider.js';

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
  // A branch of its own makes these steps a graph of their own, in which the denoiser is not even run.
  const zero: Branch = { name: `zero ${options.zeroInitSteps}`, condition: 'positive', predict: zerosLike };
  return {
    ...inner,
    branches: (step) => (isZero(step) ? [positive, zero] : inner.branches(step)),
    combine(predictions, inputs, state) {
      if (!predictions.has(zero.name)) return inner.combine(predictions, inputs, state);
      return { prediction: zerosLike(predictions.get('positive')!), state };
    },
  };
}

/** ⟨a, b⟩ of each sample, or along some axes: summed axes stay, as 1. */
export const dot = (a: Tensor, b: Tensor, axes?: readonly number[]): Tensor =>
  a.mul(b).sum([...(axes ?? a.shape.map((_, axis) => axis).slice(1))], true);
