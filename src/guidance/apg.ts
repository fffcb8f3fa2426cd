import { type Tensor, where } from '../tensor/index.js';
import { dot } from './cfgZeroStar.js';
import { type Contrasted, contrast } from './contrast.js';
import { at, type GuidanceOptions, type Guider, type Schedule } from './guider.js';

export interface ApgOptions extends GuidanceOptions {
  /** Share of the update that is parallel to the conditional prediction, which oversaturates; default 0. */
  readonly eta?: number;
  /** Of the running sum of updates; negative values push away from earlier ones. Default -0.5; 0 switches it off. */
  readonly momentum?: number;
  /** Updates longer than this (Euclidean, per sample) are shortened to it; default 0, no limit. */
  readonly normThreshold?: number;
  /** Axes over which lengths and angles are taken; default all but the batch. */
  readonly axes?: readonly number[];
  /**
   * What the update u is added to: the paper's ε(x, y) + (s - 1) u, or, as diffusers does unless told to use the
   * original formulation, ε(x, ∅) + s u. They differ when u is not the whole difference. Default 'conditional'.
   */
  readonly base?: 'conditional' | 'unconditional';
}

/**
 * Adaptive projected guidance (Sadat et al. 2024): classifier-free guidance whose update has momentum, a length limit,
 * and little along the conditional prediction, so that high scales do not oversaturate.
 * @throws RangeError for an interval or rescale that makes no sense.
 */
export function apg(scale: Schedule, options: ApgOptions = {}): Guider {
  return contrast(scale, options, { slots: slotsOf(options), formula: (p) => projected(p, options) });
}

export interface ApgMixOptions extends ApgOptions {
  /** So many steps are guided by plain classifier-free guidance; default 6. */
  readonly cfgSteps?: number;
}

/**
 * Classifier-free guidance first, {@link apg} after `cfgSteps` (HunyuanImage 2.1); the momentum gathers from the start.
 * @throws RangeError for an interval or rescale that makes no sense.
 */
export function apgMix(cfgScale: Schedule, apgScale: Schedule, options: ApgMixOptions = {}): Guider {
  const { cfgSteps = 6 } = options;
  return contrast((step) => at(step.index < cfgSteps ? cfgScale : apgScale, step), options, {
    slots: slotsOf(options),
    numbers: ({ index }) => [Number(index >= cfgSteps)],
    formula(p) {
      const { prediction, state } = projected(p, options);
      const plain = p.conditional.add(p.weight.mul(p.conditional.sub(p.other)));
      return { prediction: where(p.numbers[0].greater(0), prediction, plain), state };
    },
  });
}

const slotsOf = ({ momentum = -0.5 }: ApgOptions): number => (momentum === 0 ? 0 : 1);

function projected({ conditional, other, weight, state }: Contrasted, options: ApgOptions) {
  const { eta = 0, momentum = -0.5, normThreshold = 0, axes, base = 'conditional' } = options;
  const difference = conditional.sub(other);
  const average = momentum === 0 ? difference : difference.add(state[0].mul(momentum));
  const norm = (x: Tensor) => dot(x, x, axes).sqrt().maximum(1e-12);
  const update = normThreshold > 0 ? average.mul(norm(average).reciprocal().mul(normThreshold).minimum(1)) : average;
  const direction = conditional.div(norm(conditional));
  const parallel = dot(update, direction, axes).mul(direction);
  const kept = update.add(parallel.mul(eta - 1));
  const prediction = base === 'conditional' ? conditional.add(weight.mul(kept)) : other.add(weight.add(1).mul(kept));
  return { prediction, state: momentum === 0 ? [] : [average] };
}
