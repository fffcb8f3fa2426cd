import {
  at,
  checkInterval,
  type Guider,
  type Interval,
  inputAt,
  isInside,
  negative,
  positive,
  type Schedule,
  type StepInfo,
} from './guider.js';
import { rescaleGuidance } from './rescale.js';

export interface CfgOptions {
  /** Outside it the conditional prediction is used alone, at half the cost (Kynkäänniemi et al. 2024). */
  readonly interval?: Interval;
  /** How much of {@link rescaleGuidance} to apply, 0 to 1; default 0. */
  readonly rescale?: number;
  /** Guide only this many leading channels (the original DiT code guides 3); default all of the sample's. */
  readonly channels?: number;
  /**
   * What the scale means. 'standard': 1 is the conditional prediction, 0 the unconditional one.
   * 'paper' (Ho and Salimans 2022): 0 is the conditional one, so w = scale - 1.
   */
  readonly convention?: 'standard' | 'paper';
}

/**
 * Classifier-free guidance: negative + scale (positive - negative).
 * @throws RangeError for an interval that is not rising inside [0, 1], or a rescale outside [0, 1].
 */
export function cfg(scale: Schedule, options: CfgOptions = {}): Guider {
  const { interval, rescale = 0, channels, convention = 'standard' } = options;
  checkInterval(interval);
  checkRescale(rescale);
  const scaleAt = (step: StepInfo) => {
    if (!isInside(interval, step)) return 1;
    return at(scale, step) + (convention === 'paper' ? 1 : 0);
  };
  return {
    channels,
    slots: 0,
    inputCount: 2,
    branches(step) {
      const s = scaleAt(step);
      if (s === 1) return [positive];
      return s === 0 && rescale === 0 ? [negative] : [positive, negative];
    },
    inputs: (step) => [scaleAt(step), rescale],
    combine(predictions, inputs, state) {
      const conditional = predictions.get('positive');
      const unconditional = predictions.get('negative');
      if (!conditional || !unconditional) return { prediction: (conditional ?? unconditional)!, state };
      const guided = unconditional.add(inputAt(inputs, 0).mul(conditional.sub(unconditional)));
      const prediction = rescale === 0 ? guided : rescaleGuidance(guided, conditional, inputAt(inputs, 1));
      return { prediction, state };
    },
  };
}

export function checkRescale(rescale: number): void {
  if (!(rescale >= 0 && rescale <= 1)) throw new RangeError(`guidance: rescale must lie in [0, 1], got ${rescale}`);
}

/** No guidance: the conditional prediction. */
export const unguided = (): Guider => cfg(1);
