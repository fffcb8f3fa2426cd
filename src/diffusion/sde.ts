import { type NdArray, ndarray, type Shape } from '../array/index.js';
import type { Generator } from '../random/index.js';
import { constant, type Tensor } from '../tensor/index.js';
import { linspaceFloat32 } from './numeric.js';
import { type NoiseLevels, perSample } from './prediction.js';

export const sdeNames = ['vp', 'subvp', 've'] as const;
export type SdeName = (typeof sdeNames)[number];

/** One of N steps of the chain whose limit the SDE is: x' = x + drift x + diffusion z. */
export interface ChainStep {
  readonly drift: number;
  readonly diffusion: number;
  /** How strongly Langevin correctors step here: 1 - beta of the chain, 1 where the variance explodes. */
  readonly alpha: number;
  /** Standard deviation of the noise one step closer to the data; of a variance exploding chain only. */
  readonly previous?: number;
}

/**
 * A diffusion dx = drift(t) x dt + diffusion(t) dw, from data at t = 0 to noise at t = 1: Song et al. 2021, section 3.4
 * and appendix C. What depends on t alone are plain numbers in float64; follows yang-song/score_sde_pytorch.
 */
export interface Sde {
  readonly name: SdeName;
  drift(t: number): number;
  diffusion(t: number): number;
  /** x_t = alpha x_0 + sigma noise. */
  marginal(t: number): { readonly alpha: number; readonly sigma: number };
  /** The step of the N-step chain that t in [0, 1] falls into, in float32 as its models were trained. */
  chain(t: number, count: number): ChainStep;
  /** Standard deviation of the Gaussian that stands for the distribution at t = 1. */
  readonly priorSigma: number;
  /** {@link marginal} at times [N], as a graph. */
  levels(times: Tensor): NoiseLevels;
  /** The square of {@link diffusion} at times [N], as a graph. */
  squaredDiffusion(times: Tensor): Tensor;
  /** What networks conditioned on a continuous t are told at times [N]: 999 t, and sigma where the variance explodes. */
  labels(times: Tensor): Tensor;
}

export interface BetaRange {
  /** beta(t) rises evenly from `betaMin` (0.1) to `betaMax` (20). */
  readonly betaMin?: number;
  readonly betaMax?: number;
}

const f = Math.fround;
const chainIndex = (t: number, count: number): number => Math.trunc(f(f(t) * (count - 1)));

function betas({ betaMin = 0.1, betaMax = 20 }: BetaRange, name: string) {
  if (!(betaMin > 0 && betaMax >= betaMin))
    throw new RangeError(`${name}: expected 0 < betaMin <= betaMax, got ${betaMin} and ${betaMax}`);
  const slope = betaMax - betaMin;
  return {
    beta: (t: number) => betaMin + t * slope,
    /** log alpha. */
    logMean: (t: number) => -0.25 * t ** 2 * slope - 0.5 * t * betaMin,
    betaOf: (times: Tensor) => times.mul(slope).add(betaMin),
    logMeanOf: (times: Tensor) =>
      times
        .square()
        .mul(-0.25 * slope)
        .sub(times.mul(0.5 * betaMin)),
    chainBeta: (t: number, count: number) =>
      linspaceFloat32(betaMin / count, betaMax / count, count)[chainIndex(t, count)],
  };
}

/** Variance preserving: the limit of DDPM. dx = -beta(t)/2 x dt + sqrt(beta(t)) dw. */
export function vpSde(range: BetaRange = {}): Sde {
  const { beta, logMean, betaOf, logMeanOf, chainBeta } = betas(range, 'vpSde');
  return {
    name: 'vp',
    drift: (t) => -0.5 * beta(t),
    diffusion: (t) => Math.sqrt(beta(t)),
    marginal: (t) => ({ alpha: Math.exp(logMean(t)), sigma: Math.sqrt(-Math.expm1(2 * logMean(t))) }),
    chain(t, count) {
      const step = chainBeta(t, count);
      const alpha = f(1 - step);
      return { drift: f(Math.sqrt(alpha)) - 1, diffusion: f(Math.sqrt(step)), alpha };
    },
    priorSigma: 1,
    levels(times) {
      const log = logMeanOf(times);
      return { alpha: log.exp(), sigma: constant(1).sub(log.mul(2).exp()).sqrt() };
    },
    squaredDiffusion: betaOf,
    labels: (times) => times.mul(999),
  };
}

/** Below the variance of {@link vpSde} at every t, with the same drift: the best of the three at likelihoods. */
export function subVpSde(range: BetaRange = {}): Sde {
  const { beta, logMean, betaOf, logMeanOf, chainBeta } = betas(range, 'subVpSde');
  const diffusion = (t: number): number => Math.sqrt(beta(t) * -Math.expm1(4 * logMean(t)));
  return {
    name: 'subvp',
    drift: (t) => -0.5 * beta(t),
    diffusion,
    marginal: (t) => ({ alpha: Math.exp(logMean(t)), sigma: -Math.expm1(2 * logMean(t)) }),
    chain: (t, count) => ({
      drift: (-0.5 * beta(t)) / count,
      diffusion: diffusion(t) / Math.sqrt(count),
      alpha: f(1 - chainBeta(t, count)),
    }),
    priorSigma: 1,
    levels(times) {
      const log = logMeanOf(times);
      return { alpha: log.exp(), sigma: constant(1).sub(log.mul(2).exp()) };
    },
    squaredDiffusion: (times) => betaOf(times).mul(constant(1).sub(logMeanOf(times).mul(4).exp())),
    labels: (times) => times.mul(999),
  };
}

export interface SigmaRange {
  /** sigma(t) rises from `sigmaMin` (0.01) to `sigmaMax` (50), evenly in its logarithm. */
  readonly sigmaMin?: number;
  readonly sigmaMax?: number;
}

/** Variance exploding: the limit of SMLD (NCSN). dx = sigma(t) sqrt(2 log(sigmaMax / sigmaMin)) dw. */
export function veSde({ sigmaMin = 0.01, sigmaMax = 50 }: SigmaRange = {}): Sde {
  if (!(sigmaMin > 0 && sigmaMax > sigmaMin))
    throw new RangeError(`veSde: expected 0 < sigmaMin < sigmaMax, got ${sigmaMin} and ${sigmaMax}`);
  const rise = Math.log(sigmaMax / sigmaMin);
  const sigma = (t: number): number => sigmaMin * Math.exp(rise * t);
  const sigmaOf = (times: Tensor): Tensor => times.mul(rise).exp().mul(sigmaMin);
  return {
    name: 've',
    drift: () => 0,
    diffusion: (t) => sigma(t) * Math.sqrt(2 * rise),
    marginal: (t) => ({ alpha: 1, sigma: sigma(t) }),
    chain(t, count) {
      const index = chainIndex(t, count);
      const sigmas = chainSigmas(sigmaMin, sigmaMax, count);
      const previous = index === 0 ? 0 : sigmas[index - 1];
      return { drift: 0, diffusion: f(Math.sqrt(f(f(sigmas[index] ** 2) - f(previous ** 2)))), alpha: 1, previous };
    },
    priorSigma: sigmaMax,
    levels: (times) => ({ alpha: times.mul(0).add(1), sigma: sigmaOf(times) }),
    squaredDiffusion: (times) =>
      sigmaOf(times)
        .square()
        .mul(2 * rise),
    labels: sigmaOf,
  };
}

/** The noise levels of the N-step variance exploding chain, rising, in float32. */
export const chainSigmas = (sigmaMin: number, sigmaMax: number, count: number): Float32Array<ArrayBuffer> =>
  linspaceFloat32(Math.log(sigmaMin), Math.log(sigmaMax), count).map(Math.exp);

/** What is added to x per unit of time (or, of a chain, per step): `x` of x, `score` of the score, `noise` of noise. */
export interface ReverseForm {
  readonly x: number;
  readonly score: number;
  readonly noise: number;
}

/**
 * The same process in reverse, Song et al. 2021, equation 6: dx = (x x + score s(x, t)) dt + noise dw with time running
 * down. With `probabilityFlow` its deterministic twin of the same marginals, equation 13.
 */
export function reverseDrift(sde: Sde, t: number, probabilityFlow = false): ReverseForm {
  const diffusion = sde.diffusion(t);
  return {
    x: sde.drift(t),
    score: -(diffusion ** 2) * (probabilityFlow ? 0.5 : 1),
    noise: probabilityFlow ? 0 : diffusion,
  };
}

/** The same of one step of the N-step chain: x' = x - (x x + score s(x, t)) + noise z. Appendix E, equation 46. */
export function reverseChain(sde: Sde, t: number, count: number, probabilityFlow = false): ReverseForm {
  const { drift, diffusion } = sde.chain(t, count);
  return {
    x: drift,
    score: -(diffusion ** 2) * (probabilityFlow ? 0.5 : 1),
    noise: probabilityFlow ? 0 : diffusion,
  };
}

/** Times from 1 down to `end`, evenly, in float32. */
export const sdeTimes = (count: number, end: number): number[] => Array.from(linspaceFloat32(1, end, count));

/** Noise to start sampling from. */
export function samplePrior(sde: Sde, shape: Shape, rng: Generator): NdArray<'float32'> {
  const noise = rng.randn(shape);
  return ndarray(
    noise.data.map((z) => z * sde.priorSigma),
    shape,
  );
}

/** Log density of the prior, in nats, of each of z [N, ...]. */
export function priorLogProb(sde: Sde, z: NdArray<'float32' | 'float64'>): Float64Array {
  const size = z.data.length / z.shape[0];
  const variance = sde.priorSigma ** 2;
  return Float64Array.from({ length: z.shape[0] }, (_, n) => {
    let squares = 0;
    for (let i = n * size; i < (n + 1) * size; i++) squares += z.data[i] ** 2;
    return -0.5 * (size * Math.log(2 * Math.PI * variance) + squares / variance);
  });
}

/** ∇ log p_t(x): x [N, ...] at times [N], the shape of x. */
export type ScoreGraph = (x: Tensor, times: Tensor) => Tensor;

/**
 * The score out of a network as Song et al. train them, conditioned on continuous time: one that predicts the noise
 * where the SDE is (sub-)variance preserving, one that predicts the score itself where the variance explodes.
 */
export const scoreOfNetwork =
  (sde: Sde, network: (x: Tensor, labels: Tensor) => Tensor): ScoreGraph =>
  (x, times) => {
    const answer = network(x, sde.labels(times));
    return sde.name === 've' ? answer : answer.neg().div(perSample(sde.levels(times).sigma, x));
  };

export interface ScoreMatchingOptions {
  /** Weigh by diffusion(t)^2, which bounds the likelihood (Song et al. 2021, "Maximum likelihood training"), not by sigma^2. */
  readonly likelihoodWeighting?: boolean;
  /** Mean over a sample's elements (the default), or half their sum. */
  readonly reduceMean?: boolean;
}

/**
 * Denoising score matching, Song et al. 2021, equation 7. Follows get_sde_loss_fn of score_sde_pytorch.
 * @param x0 data [N, ...] @param noise unit normal, of x0's shape
 * @param times [N] in (0, 1], usually uniform from 1e-5 on.
 * @returns the mean over the samples, a scalar.
 */
export function scoreMatchingLoss(
  sde: Sde,
  score: ScoreGraph,
  { x0, noise, times }: { readonly x0: Tensor; readonly noise: Tensor; readonly times: Tensor },
  { likelihoodWeighting = false, reduceMean = true }: ScoreMatchingOptions = {},
): Tensor {
  const { alpha, sigma } = sde.levels(times);
  const [mean, std] = [perSample(alpha, x0).mul(x0), perSample(sigma, x0)];
  const answer = score(mean.add(std.mul(noise)), times);
  const miss = likelihoodWeighting ? answer.add(noise.div(std)) : answer.mul(std).add(noise);
  const axes = x0.shape.map((_, axis) => axis).slice(1);
  const errors = reduceMean ? miss.square().mean(axes) : miss.square().sum(axes).mul(0.5);
  return (likelihoodWeighting ? errors.mul(sde.squaredDiffusion(times)) : errors).mean();
}
