import type { Tensor } from '../tensor/index.js';

export interface EmaOptions {
  /** The decay that is approached; default 0.9999. */
  readonly decay?: number;
  /** A floor of the decay once averaging has begun; default 0. */
  readonly minDecay?: number;
  /** Steps during which the average simply follows the weights; default 0. */
  readonly updateAfterStep?: number;
  /** Warm up as 1 - (1 + step/invGamma)^-power instead of (1 + step)/(10 + step); default false. */
  readonly useEmaWarmup?: boolean;
  /** Default 1. */
  readonly invGamma?: number;
  /** Default 2/3. */
  readonly power?: number;
}

/**
 * The decay of the exponential moving average after an optimiser step, as diffusers' EMAModel: 0 at first (the average
 * takes the weights as they are), then 2/11, 3/12 and so on up to `decay`.
 * @param step counted from 1, the first optimiser step.
 */
export function emaDecay(step: number, options: EmaOptions = {}): number {
  const {
    decay = 0.9999,
    minDecay = 0,
    updateAfterStep = 0,
    useEmaWarmup = false,
    invGamma = 1,
    power = 2 / 3,
  } = options;
  const averaged = step - updateAfterStep - 1;
  if (averaged <= 0) return 0;
  const rising = useEmaWarmup ? 1 - (1 + averaged / invGamma) ** -power : (1 + averaged) / (10 + averaged);
  return Math.max(Math.min(rising, decay), minDecay);
}

/**
 * The next average of a weight. It takes 1 - decay, not decay, because near 1 that holds more digits in float32.
 */
export const emaUpdate = (average: Tensor, weight: Tensor, oneMinusDecay: Tensor | number): Tensor =>
  average.sub(average.sub(weight).mul(oneMinusDecay));
