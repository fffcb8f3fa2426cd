import { dot } from './cfgZeroStar.js';
import { contrast } from './contrast.js';
import type { GuidanceOptions, Guider, Schedule } from './guider.js';

export interface MagnitudeAwareOptions extends GuidanceOptions {
  /** How fast guidance fades as the predictions part; default 8. */
  readonly alpha?: number;
}

/**
 * Magnitude-aware guidance (MAMBO-G, arXiv 2508.03442): classifier-free guidance whose weight fades per sample as
 * exp(-α |ε(x, y) - ε(x, ∅)| / |ε(x, ∅)|), which tames the first steps.
 * @throws RangeError for an interval or rescale that makes no sense.
 */
export function magnitudeAware(scale: Schedule, options: MagnitudeAwareOptions = {}): Guider {
  const { alpha = 8 } = options;
  return contrast(scale, options, {
    formula({ conditional, other, weight }) {
      const update = conditional.sub(other);
      const ratio = dot(update, update).div(dot(other, other).maximum(1e-24)).sqrt();
      return conditional.add(weight.mul(ratio.mul(-alpha).exp()).mul(update));
    },
  });
}
