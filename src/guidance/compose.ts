import type { Tensor } from '../tensor/index.js';
import { checkRescale } from './cfg.js';
import { checkInterval, type Guider, type Interval, inputAt, isInside, positive } from './guider.js';
import { rescaleGuidance } from './rescale.js';

export interface GuideOptions {
  /** Outside it the conditional prediction is used alone. */
  readonly interval?: Interval;
  /** Share of {@link rescaleGuidance} applied to the sum, 0 to 1; default 0. */
  readonly rescale?: number;
  /** Guide only this many leading channels. */
  readonly channels?: number;
}

/**
 * Several guiders at once: what each adds to the conditional prediction is summed.
 * `guide(cfg(4), pag(2), { interval: [0.1, 0.8], rescale: 0.7 })`
 * @throws RangeError without a guider, or for a wrong interval or rescale.
 */
export function guide(...parts: readonly [Guider, ...Guider[]] | readonly [Guider, ...Guider[], GuideOptions]): Guider {
  const all: readonly (Guider | GuideOptions)[] = parts;
  const isGuider = (part: Guider | GuideOptions): part is Guider => 'combine' in part;
  const guiders = all.filter(isGuider);
  const options: GuideOptions = all.find((part) => !isGuider(part)) ?? {};
  const { interval, rescale = 0, channels } = options;
  if (guiders.length === 0) throw new RangeError('guide: expected at least one guider, got none');
  checkInterval(interval);
  checkRescale(rescale);
  return {
    channels,
    slots: guiders.reduce((n, guider) => n + guider.slots, 0),
    branches(step) {
      if (!isInside(interval, step)) return [positive];
      const asked = [positive, ...guiders.flatMap((guider) => guider.branches(step))];
      return [...new Map(asked.map((branch) => [branch.name, branch])).values()];
    },
    inputs: (step) => [rescale, ...guiders.flatMap((guider) => guider.inputs(step))],
    inputCount: 1 + guiders.reduce((n, guider) => n + guider.inputCount, 0),
    combine(predictions, inputs, state) {
      const conditional = predictions.get('positive')!;
      if (predictions.size === 1) return { prediction: conditional, state };
      let [guided, nextInput, nextSlot] = [conditional, 1, 0];
      const nextState: Tensor[] = [];
      for (const guider of guiders) {
        const own = inputs.slice(0, nextInput, nextInput + guider.inputCount);
        const result = guider.combine(predictions, own, state.slice(nextSlot, nextSlot + guider.slots));
        guided = guided.add(result.prediction.sub(conditional));
        nextState.push(...result.state);
        nextInput += guider.inputCount;
        nextSlot += guider.slots;
      }
      const prediction = rescale === 0 ? guided : rescaleGuidance(guided, conditional, inputAt(inputs, 0));
      return { prediction, state: nextState };
    },
  };
}
