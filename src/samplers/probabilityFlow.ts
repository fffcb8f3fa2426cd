import { type NdArray, ndarray, type Shape } from '../array/index.js';
import { priorLogProb, reverseChain, reverseDrift, type ScoreGraph, type Sde } from '../diffusion/index.js';
import type { Generator } from '../random/index.js';
import { gradients, type Tensor } from '../tensor/index.js';
import { type OdeStep, solveIvp } from './ode.js';

type Array32 = NdArray<'float32'>;

/** ∇ log p_t(x) of x [N, ...] at one time; a compiled network, or a formula. */
export type ScoreFunction = (x: Array32, t: number) => NdArray | Promise<NdArray>;

/** The score with probe · (∂score/∂x) probe of each sample, [N]. */
export type ScoreDivergenceFunction = (
  x: Array32,
  t: number,
  probe: Array32,
) => Promise<{ readonly score: NdArray; readonly divergence: NdArray }>;

export interface FlowOptions {
  /** Of the solver's steps, relative and absolute; default 1e-5. */
  readonly rtol?: number;
  readonly atol?: number;
  readonly onStep?: (step: OdeStep) => void;
}

export interface FlowResult {
  readonly x: Array32;
  /** Calls of the score. */
  readonly evaluations: number;
}

/**
 * Solves the probability-flow ODE of an SDE, Song et al. 2021, equation 13, from one time to another: from 1 to 1e-3 it
 * samples, from 1e-5 to 1 it encodes. Adaptive steps; follows get_ode_sampler of score_sde_pytorch, scipy's RK45.
 * @param x [N, ...] at time `from`; to sample, {@link samplePrior}'s.
 * @param denoise of how many steps the chain is whose last step's mean is taken in the end; default: none.
 */
export async function probabilityFlow(
  sde: Sde,
  score: ScoreFunction,
  x: Array32,
  options: FlowOptions & { readonly from?: number; readonly to?: number; readonly denoise?: number } = {},
): Promise<FlowResult> {
  const { from = 1, to = 1e-3, denoise, rtol = 1e-5, atol = 1e-5, onStep } = options;
  const slope = async (t: number, y: Float64Array): Promise<Float64Array> =>
    driftOf(sde, t, y, (await score(ndarray(Float32Array.from(y), x.shape), t)).data);
  const { y, evaluations } = await solveIvp(slope, [from, to], Float64Array.from(x.data), { rtol, atol, onStep });
  const end = ndarray(Float32Array.from(y), x.shape);
  if (denoise === undefined) return { x: end, evaluations };
  const form = reverseChain(sde, to, denoise);
  const { data } = await score(end, to);
  const cleaned = end.data.map((value, i) => value - form.x * value - form.score * Number(data[i]));
  return { x: ndarray(cleaned, x.shape), evaluations: evaluations + 1 };
}

function driftOf(sde: Sde, t: number, x: Float64Array, score: NdArray['data']): Float64Array {
  const form = reverseDrift(sde, t, true);
  return x.map((value, i) => form.x * value + form.score * Number(score[i]));
}

export interface Likelihood {
  /** Natural logarithm of the density of each sample, [N]. */
  readonly logProb: Float64Array;
  /** The samples' codes at t = 1, [N, ...]. */
  readonly latents: Array32;
  readonly evaluations: number;
}

/**
 * The likelihood of data under the probability-flow ODE, by the change of variables along it, Song et al. 2021, section
 * 4.3: exact but for the solver's tolerance and Hutchinson's estimate of the divergence. Follows get_likelihood_fn of
 * score_sde_pytorch.
 * @param data [N, ...].
 * @param probe of data's shape, from {@link hutchinsonProbe}.
 * @param from the time at which the data are taken to be; default 1e-5.
 */
export async function logLikelihood(
  sde: Sde,
  score: ScoreDivergenceFunction,
  data: Array32,
  probe: Array32,
  { from = 1e-5, rtol = 1e-5, atol = 1e-5, onStep }: FlowOptions & { readonly from?: number } = {},
): Promise<Likelihood> {
  const { shape } = data;
  const [count, size] = [shape[0], data.data.length];
  const squares = perSampleSums(
    probe.data.map((e) => e * e),
    count,
  );
  const slope = async (t: number, joint: Float64Array): Promise<Float64Array> => {
    const x = joint.subarray(0, size);
    const answer = await score(ndarray(Float32Array.from(x), shape), t, probe);
    const form = reverseDrift(sde, t, true);
    const rates = squares.map((square, n) => form.x * square + form.score * Number(answer.divergence.data[n]));
    return Float64Array.from([...driftOf(sde, t, x, answer.score.data), ...rates]);
  };
  const start = Float64Array.from([...data.data, ...new Float64Array(count)]);
  const { y, evaluations } = await solveIvp(slope, [from, 1], start, { rtol, atol, onStep });
  const latents = ndarray(Float32Array.from(y.subarray(0, size)), shape);
  const logProb = priorLogProb(sde, latents).map((prior, n) => prior + y[size + n]);
  return { logProb, latents, evaluations };
}

const perSampleSums = (values: Float32Array, count: number): Float64Array => {
  const size = values.length / count;
  return Float64Array.from({ length: count }, (_, n) =>
    values.subarray(n * size, (n + 1) * size).reduce((sum, x) => sum + x, 0),
  );
};

/**
 * A log density of data in [-1, 1] as bits per dimension of the integers 0..levels-1 they were scaled from.
 * @param size number of dimensions; `span` how far apart the ends of the data's range are.
 */
export const bitsPerDimension = (logProb: number, size: number, { levels = 256, span = 2 } = {}): number =>
  -logProb / (size * Math.LN2) + Math.log2(levels / span);

/** Numbers of mean 0 and variance 1: signs, or normal numbers, whose estimates scatter more. */
export function hutchinsonProbe(shape: Shape, rng: Generator, kind: 'rademacher' | 'gaussian' = 'rademacher'): Array32 {
  if (kind === 'gaussian') return rng.randn(shape);
  return ndarray(
    Float32Array.from(rng.randn(shape).data, (z) => (z < 0 ? -1 : 1)),
    shape,
  );
}

/** The graph behind a {@link ScoreDivergenceFunction}: by one backward pass, probe · (∂score/∂x) probe. */
export function scoreDivergence(
  score: ScoreGraph,
  x: Tensor,
  times: Tensor,
  probe: Tensor,
): { score: Tensor; divergence: Tensor } {
  const answer = score(x, times);
  const [gradient] = gradients(answer.mul(probe).sum(), [x]);
  const axes = x.shape.map((_, axis) => axis).slice(1);
  return { score: answer, divergence: gradient.mul(probe).sum(axes) };
}
