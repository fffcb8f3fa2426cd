import { type NdArray, ndarray, zeros } from '../array/index.js';
import { type Tensor, topK, zerosLike } from '../tensor/index.js';
import { type Clipping, coefficients, type SamplerPlan, type StepLayout, type Term } from './plan.js';

export interface StepInputs {
  /** Numbers of the call, from {@link coefficientsOf}: [layout's count]. An input of the graph, never a constant. */
  readonly coefficients: Tensor;
  /** One tensor per slot of the layout, x first, all of x's shape [N, C, ...]. */
  readonly state: readonly Tensor[];
  /** The denoiser's answer [N, C, ...], or [N, 2C, ...] with a learned variance in the second half. */
  readonly prediction: Tensor;
  /** Unit normal numbers of x's shape; needed where the layout has noise terms (zeros will do where a call has none). */
  readonly noise?: Tensor;
  /** Guides the mean where the sampler has one (DDPM): a gradient of log-probability in x, of x's shape. */
  readonly gradient?: Tensor;
}

/** A type, so that compiled functions can return it. */
export type StepResult = {
  readonly state: readonly Tensor[];
  /** The sampler's present estimate of the clean sample, clipped: for previews. */
  readonly x0: Tensor;
};

/** The numbers of call k as the input that {@link applyStep} and {@link scaleInput} read. */
export const coefficientsOf = (plan: SamplerPlan, k: number): NdArray<'float32'> => ndarray(coefficients(plan, k));

/** The state before the first call, from x already scaled by `plan.initialScale` (or noised to the first call). */
export const initialState = (layout: StepLayout, x: NdArray<'float32'>): NdArray<'float32'>[] =>
  layout.slots.map((slot) => (slot === 'x' ? x : zeros(x.shape)));

/** What the denoiser is shown for x. */
export const scaleInput = (layout: StepLayout, coefficients: Tensor, x: Tensor): Tensor =>
  layout.scalesInput ? x.mul(coefficients.slice(0, 0, 1)) : x;

/**
 * One step of any sampler as a graph: a pure function of its inputs, the same for every call of a plan, so runs may
 * be interleaved and nothing recompiles.
 * @throws RangeError when the prediction's channels do not fit x, TypeError when noise is needed and not given, or a
 * gradient is given to a sampler without a mean to guide.
 */
export function applyStep(layout: StepLayout, inputs: StepInputs): StepResult {
  const { slots, terms, clipping, learnedVariance } = layout;
  const [x] = inputs.state;
  const [mean, variance] = splitVariance(inputs.prediction, x);
  if (learnedVariance !== 'none' && !variance)
    throw new RangeError(`sampler step: a learned variance needs ${2 * x.shape[1]} channels, got ${mean.shape[1]}`);
  const coefficient = (i: number) => inputs.coefficients.slice(0, i, i + 1);
  const logStd = (v: Tensor) => coefficient(terms.length + 1).add(v.mul(coefficient(terms.length + 2)));

  const known = new Map<string, Tensor>([...slots.map((slot, i) => [slot, inputs.state[i]] as const)]);
  known.set('prediction', mean);
  const std = learnedVariance === 'learned' ? variance!.maximum(0).sqrt() : undefined;
  const deviation = learnedVariance === 'learned_range' ? logStd(variance!).exp() : std;
  if (inputs.noise) known.set('noise', deviation ? inputs.noise.mul(deviation) : inputs.noise);
  if (inputs.gradient) {
    if (!terms.some(({ term }) => term === 'gradient'))
      throw new TypeError(
        'sampler step: a gradient can guide the mean of DDPM only; guide the score with this sampler',
      );
    known.set('gradient', deviation ? inputs.gradient.mul(deviation.square()) : inputs.gradient);
  }
  const evaluate = (result: string): Tensor => {
    const parts = terms.flatMap((term, i) =>
      term.result === result && (term.term !== 'gradient' || inputs.gradient)
        ? [product(known, term, coefficient(i + 1))]
        : [],
    );
    return parts.length > 0 ? parts.reduce((a, b) => a.add(b)) : zerosLike(x);
  };
  const x0 = clip(evaluate('x0'), clipping);
  known.set('x0', x0);
  const divisor = terms.findIndex(({ result }) => result === 'slope');
  if (divisor >= 0) known.set('slope', x.sub(x0).div(coefficient(divisor + 1)));
  if (terms.some(({ result }) => result === 'score')) {
    const score = evaluate('score');
    const noise = inputs.noise ?? zerosLike(x);
    const ratio = meanNorm(noise).div(meanNorm(score));
    known.set('climb', score.mul(ratio.square()));
    known.set('shake', noise.mul(ratio));
  }
  return { state: slots.map(evaluate), x0 };
}

/** The batch's mean of the samples' Euclidean norms, a scalar. */
const meanNorm = (x: Tensor): Tensor => x.reshape([x.shape[0], -1]).square().sum(1).sqrt().mean();

function product(known: ReadonlyMap<string, Tensor>, { result, term }: Term, coefficient: Tensor): Tensor {
  const value = known.get(term);
  if (!value) throw new TypeError(`sampler step: ${result} needs ${term}, which was not given`);
  return value.mul(coefficient);
}

function splitVariance(prediction: Tensor, x: Tensor): [mean: Tensor, variance?: Tensor] {
  const channels = x.shape[1];
  if (prediction.shape[1] === channels) return [prediction];
  if (prediction.shape[1] !== 2 * channels)
    throw new RangeError(`sampler step: x has ${channels} channels, the prediction ${prediction.shape[1]}`);
  return [prediction.slice(1, 0, channels), prediction.slice(1, channels, 2 * channels)];
}

function clip(x0: Tensor, clipping: Clipping): Tensor {
  if (clipping.kind === 'none') return x0;
  if (clipping.kind === 'clip') return x0.clamp(-clipping.range, clipping.range);
  const limit = quantileOfAbs(x0, clipping.ratio).clamp(1, clipping.max);
  return x0.minimum(limit).maximum(limit.neg()).div(limit);
}

/** Per sample, the quantile of |x| over all else, linear between neighbours: [N, 1, ...]. */
function quantileOfAbs(x: Tensor, ratio: number): Tensor {
  const flat = x.abs().reshape([x.shape[0], -1]);
  const count = flat.shape[1];
  const rank = Math.fround(ratio) * (count - 1);
  const below = Math.floor(rank);
  const { values } = topK(flat, count - below);
  const low = values.slice(1, count - below - 1);
  const high = below + 1 < count ? values.slice(1, count - below - 2, count - below - 1) : low;
  return low.add(high.sub(low).mul(rank - below)).reshape([x.shape[0], ...x.shape.slice(1).map(() => 1)]);
}
