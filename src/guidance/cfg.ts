import {
  at,
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
 * Classifier-free guidance: negative + scale (positive - negative).
 * @throws RangeError for an interval that is not rising inside [0, 1], or a rescale outside [0, 1].
 */
export function cfg(scale: Schedule, options: GuidanceOptions = {}): Guider {
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

/** No guidance: the conditional prediction. */
export const unguided = (): Guider => cfg(1);
