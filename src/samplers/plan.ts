import { type Linear, substitute } from './linear.js';
import type { Marginal } from './marginal.js';

/** What happens to the estimate of the clean sample before the step uses it. */
export type Clipping =
  | { readonly kind: 'none' }
  | { readonly kind: 'clip'; readonly range: number }
  /** Saharia et al. 2022: per sample, clip to the `ratio` quantile of |x0| (between 1 and `max`) and divide by it. */
  | { readonly kind: 'threshold'; readonly ratio: number; readonly max: number };

/** How the second half of the prediction's channels sets the noise: not at all, as variance, or within DDPM's bounds. */
export type LearnedVariance = 'none' | 'learned' | 'learned_range';

/**
 * One call of the denoiser and what the sampler does with its answer: pure numbers. `alpha` and `sigma` say how x is
 * distributed here, which is where an image can enter half-way: x = alpha x0 + sigma noise.
 */
export interface SamplerCall extends Marginal {
  /** What the denoiser is told the time is. */
  readonly timestep: number;
  /** The denoiser sees inputScale * x. */
  readonly inputScale: number;
  /** The clean sample as the denoiser sees it, before clipping: over the state slots, 'prediction' and 'noise'. */
  readonly x0: Linear;
  /** The next value of each state slot: over the slots, 'prediction', 'x0', 'noise', 'gradient'. One left out becomes 0. */
  readonly next: Readonly<Record<string, Linear>>;
  /**
   * Langevin correctors only, and then in every call: the score, over 'x', 'prediction', 'x0'. With r = the batch's mean
   * norm of the noise over that of the score, `next` may use 'climb' = r^2 score and 'shake' = r noise.
   */
  readonly score?: Linear;
  /**
   * Adds the symbol 'slope' = (x - x0) / this, for every call of a plan or none: in float32 and in this order, as
   * diffusers computes it. It loses digits that folded coefficients would keep, and methods of second order enlarge
   * what is lost.
   */
  readonly slope?: number;
  /** learned_range only: log of the noise's standard deviation = base + slope * variance prediction. */
  readonly logStd?: { readonly base: number; readonly slope: number };
}

/** A coefficient's place: which result ('x0', 'score' or a slot) and which term of it. */
export interface Term {
  readonly result: string;
  readonly term: string;
}

/** The part of a plan that shapes the graph of its step; two plans with equal keys share one compiled graph. */
export interface StepLayout {
  /** The state: 'x' first, then the sampler's history; all but x start as zeros. */
  readonly slots: readonly string[];
  readonly clipping: Clipping;
  readonly learnedVariance: LearnedVariance;
  readonly scalesInput: boolean;
  /** Coefficients that are not zero in every call, in the order in which the step reads them. */
  readonly terms: readonly Term[];
  readonly key: string;
}

/** An immutable table of everything one run of a sampler does. */
export interface SamplerPlan {
  readonly calls: readonly SamplerCall[];
  /** The first x is this times unit normal noise (diffusers' init_noise_sigma). */
  readonly initialScale: number;
  /** The noise levels of the calls and of the end, for the samplers whose time is sigma; from `start` on, too. */
  readonly sigmas?: Float32Array;
  readonly layout: StepLayout;
}

export interface PlanParts {
  readonly name: string;
  readonly calls: readonly SamplerCall[];
  readonly initialScale?: number;
  readonly sigmas?: Float32Array;
  readonly clipping?: Clipping;
  readonly learnedVariance?: LearnedVariance;
  /** Leave out the calls before this one. */
  readonly start?: number;
}

/**
 * Checks a sampler's table and works out the layout of its step. Without clipping, x0 is substituted into the other
 * results in float64, so that cancellations happen here and not in float32 on the device.
 * @throws RangeError when there is no call left to make, or a coefficient is not finite, naming the call.
 */
export function makePlan(parts: PlanParts): SamplerPlan {
  const { name, initialScale = 1, clipping = { kind: 'none' }, learnedVariance = 'none', start = 0 } = parts;
  const last = parts.calls.length - 1;
  if (!(start <= last)) throw new RangeError(`${name}: start ${start} out of range 0..${last}`);
  const kept = parts.calls.slice(start);
  const calls = { none: kept.map(foldX0), clip: kept.map(boundX0), threshold: kept }[clipping.kind];
  for (const [k, call] of calls.entries()) checkFinite(name, k, call);

  const slots = ['x', ...new Set(calls.flatMap((call) => Object.keys(call.next)).filter((slot) => slot !== 'x'))];
  const symbols = [...slots, 'prediction', 'x0', 'noise', 'gradient', 'climb', 'shake', 'slope', 'divisor'];
  const uses = (result: string, term: string) => calls.some((call) => (formOf(call, result)[term] ?? 0) !== 0);
  const terms = ['x0', 'slope', 'score', ...slots].flatMap((result) =>
    symbols.filter((term) => uses(result, term)).map((term) => ({ result, term })),
  );
  const scalesInput = calls.some((call) => call.inputScale !== 1);
  const shape = { slots, clipping, learnedVariance, scalesInput, terms };
  return { calls, initialScale, sigmas: parts.sigmas?.slice(start), layout: { ...shape, key: JSON.stringify(shape) } };
}

function formOf({ x0, score, slope, next }: SamplerCall, result: string): Linear {
  if (result === 'slope') return slope === undefined ? {} : { divisor: slope };
  return (result === 'x0' ? x0 : result === 'score' ? score : next[result]) ?? {};
}

const foldX0 = (call: SamplerCall): SamplerCall => ({
  ...call,
  ...(call.score && { score: substitute(call.score, 'x0', call.x0) }),
  next: Object.fromEntries(Object.entries(call.next).map(([slot, form]) => [slot, substitute(form, 'x0', call.x0)])),
});

/** An infinite x0, of noise prediction at zero terminal SNR, is clipped all the same: finite ones do that as well. */
const boundX0 = (call: SamplerCall): SamplerCall => ({
  ...call,
  x0: Object.fromEntries(
    Object.entries(call.x0).map(([term, c]) => [term, Math.min(Math.max(c, -(2 ** 100)), 2 ** 100)]),
  ),
});

function checkFinite(name: string, k: number, call: SamplerCall): void {
  const numbers = [call.timestep, call.inputScale, call.x0, call.score ?? {}, ...Object.values(call.next)].flatMap(
    (form) => (typeof form === 'number' ? [form] : Object.values(form)),
  );
  if (numbers.every(Number.isFinite)) return;
  const why = call.alpha === 0 ? '; at zero terminal SNR the first step needs a v or x0 prediction' : '';
  throw new RangeError(`${name}: call ${k} (timestep ${call.timestep}) has a coefficient that is not finite${why}`);
}

/**
 * How far call k's prediction moves when a gradient g of a log-probability, taken at what the denoiser sees, is added to
 * the score: by this times g. From x0 = (x + sigma^2 score) / alpha; 0 where x holds nothing of x0.
 */
export function predictionPerScore(plan: SamplerPlan, k: number): number {
  const { alpha, sigma, inputScale, x0 } = plan.calls[k];
  return alpha === 0 ? 0 : (sigma ** 2 * inputScale) / (alpha * x0.prediction);
}

/** Whether call k adds fresh noise, so that none need be drawn where it does not. */
export const usesNoise = (plan: SamplerPlan, k: number): boolean =>
  ['x0', ...plan.layout.slots].some((result) => {
    const { noise = 0, climb = 0, shake = 0 } = formOf(plan.calls[k], result);
    return noise !== 0 || climb !== 0 || shake !== 0;
  });

/**
 * The numbers of call k in the order its step graph reads them: the input scale, one per term of the layout, then
 * base and slope of the log standard deviation.
 */
export function coefficients(plan: SamplerPlan, k: number): Float32Array<ArrayBuffer> {
  const call = plan.calls[k];
  const { base = 0, slope = 0 } = call.logStd ?? {};
  const terms = plan.layout.terms.map(({ result, term }) => formOf(call, result)[term] ?? 0);
  return Float32Array.from([call.inputScale, ...terms, base, slope]);
}
