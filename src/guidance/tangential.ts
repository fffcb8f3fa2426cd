import { dot } from './cfgZeroStar.js';
import { contrast } from './contrast.js';
import type { GuidanceOptions, Guider, Schedule } from './guider.js';

/**
 * Tangential damping classifier-free guidance (Kwon et al. 2025): the unconditional prediction keeps only what lies
 * along the first right singular vector of the two predictions, per sample.
 *
 * That projection is u₂ (u₁ ε(x, y) + u₂ ε(x, ∅)), u being the first eigenvector of the predictions' 2x2 Gram matrix
 * [[a, b], [b, c]], which makes an angle θ with tan 2θ = 2b / (a - c).
 * @throws RangeError for an interval or rescale that makes no sense.
 */
export function tangentialCfg(scale: Schedule, options: GuidanceOptions = {}): Guider {
  return contrast(scale, options, {
    formula({ conditional, other, weight }) {
      const [a, b, c] = [dot(conditional, conditional), dot(conditional, other), dot(other, other)];
      const radius = a.sub(c).square().add(b.square().mul(4)).sqrt().maximum(1e-20);
      const [sin2, cos2] = [b.mul(2).div(radius), a.sub(c).div(radius)];
      const kept = sin2.mul(0.5).mul(conditional).add(cos2.neg().add(1).mul(0.5).mul(other));
      return conditional.add(weight.mul(conditional.sub(kept)));
    },
  });
}
