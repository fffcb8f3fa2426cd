import { type Tensor, where, zerosLike } from '../tensor/index.js';
import {
  checkInterval,
  checkRescale,
  type GuidanceOptions,
  type Guider,
  inputAt,
  isInside,
  type Predictions,
  positive,
} from './guider.js';
import { rescaleGuidance } from './rescale.js';

/** Of the whole: each guider may have an interval and a rescale of its own, too. */
export type GuideOptions = Omit<GuidanceOptions, 'convention'>;

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
    numClasses: agreed(guiders.map((guider) => guider.numClasses)),
    slots: guiders.reduce((n, guider) => n + guider.slots, 0),
    branches(step) {
      if (!isInside(interval, step)) return [positive];
      const asked = [positive, ...guiders.flatMap((guider) => guider.branches(step))];
      return [...new Map(asked.map((branch) => [branch.name, branch])).values()];
    },
    inputs: (step) => [Number(isInside(interval, step)), rescale, ...guiders.flatMap((guider) => guider.inputs(step))],
    inputCount: 2 + guiders.reduce((n, guider) => n + guider.inputCount, 0),
    combine(predictions, inputs, state) {
      const conditional = predictions.get('positive')!;
      if (predictions.size === 1) return { prediction: conditional, state };
      const known = interval === undefined ? predictions : new Lenient(predictions, conditional);
      let [guided, nextInput, nextSlot] = [conditional, 2, 0];
      const nextState: Tensor[] = [];
      let gradient: Tensor | undefined;
      for (const guider of guiders) {
        const own = inputs.slice(0, nextInput, nextInput + guider.inputCount);
        const result = guider.combine(known, own, state.slice(nextSlot, nextSlot + guider.slots));
        if (result.prediction !== conditional) guided = guided.add(result.prediction.sub(conditional));
        nextState.push(...result.state);
        if (result.gradient) gradient = gradient ? gradient.add(result.gradient) : result.gradient;
        nextInput += guider.inputCount;
        nextSlot += guider.slots;
      }
      if (rescale !== 0 && guided !== conditional) guided = rescaleGuidance(guided, conditional, inputAt(inputs, 1));
      if (interval === undefined) return { prediction: guided, state: nextState, gradient };
      // An outer guide may have asked for these branches at a step where this one is off.
      const on = inputAt(inputs, 0).greater(0);
      return {
        prediction: where(on, guided, conditional),
        state: nextState.map((next, i) => (next === state[i] ? next : where(on, next, state[i]))),
        gradient: gradient && where(on, gradient, zerosLike(gradient)),
      };
    },
  };
}

/**
 * Predictions where the conditional one stands in for those that are missing: outside this interval, when an outer
 * guide has asked for others, a guider is traced without its own, and what it makes of them is thrown away.
 */
class Lenient extends Map<string, Tensor> {
  constructor(
    predictions: Predictions,
    readonly conditional: Tensor,
  ) {
    super(predictions);
  }

  override get(name: string): Tensor {
    return super.get(name) ?? this.conditional;
  }
}

/** The number of classes of those guiders that know one. */
function agreed(counts: readonly (number | undefined)[]): number | undefined {
  const known = [...new Set(counts)].filter((count) => count !== undefined);
  if (known.length > 1)
    throw new RangeError(`guide: guiders of ${known.join(' and ')} classes, expected as many of each`);
  return known[0];
}
