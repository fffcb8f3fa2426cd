import type { Tensor } from '../tensor/index.js';

/** How much of the data (alpha) and of the noise (sigma) is in x_t, and how fast each changes. */
export interface PathCoefficients {
  readonly alpha: Tensor;
  readonly sigma: Tensor;
  readonly dAlpha: Tensor;
  readonly dSigma: Tensor;
}

/**
 * A way from noise x0 at t = 0 to data x1 at t = 1 (the flow matching literature's direction, opposite to diffusion's):
 * x_t = sigma_t x0 + alpha_t x1. Follows facebookresearch/flow_matching (Lipman et al. 2024).
 */
export interface AffinePath {
  /** @param t of any shape, in (0, 1) where a derivative would otherwise be infinite. */
  at(t: Tensor): PathCoefficients;
  /** The t at which alpha / sigma is `snr`. */
  snrInverse(snr: Tensor): Tensor;
}

/** Straight lines: rectified flow and conditional optimal transport (Lipman et al. 2023). */
export const condOtPath = (): AffinePath => polynomialPath(1);

/** alpha = t^n, sigma = 1 - t^n. @throws RangeError for n that is not positive. */
export function polynomialPath(n: number): AffinePath {
  if (!(n > 0)) throw new RangeError(`polynomialPath: n ${n}, expected more than 0`);
  return {
    at(t) {
      const alpha = t.pow(n);
      const dAlpha = n === 1 ? t.mul(0).add(1) : t.pow(n - 1).mul(n);
      return { alpha, sigma: alpha.neg().add(1), dAlpha, dSigma: dAlpha.neg() };
    },
    snrInverse: (snr) => snr.div(snr.add(1)).pow(1 / n),
  };
}

/** The variance preserving diffusion of Song et al. 2021, run backwards. */
export function vpPath({ betaMin = 0.1, betaMax = 20 } = {}): AffinePath {
  const slope = betaMax - betaMin;
  return {
    at(t) {
      const rest = t.neg().add(1);
      const exponent = rest
        .square()
        .mul(0.5 * slope)
        .add(rest.mul(betaMin));
      const dExponent = rest.mul(-slope).sub(betaMin);
      const alpha = exponent.mul(-0.5).exp();
      const sigma = exponent.neg().exp().neg().add(1).sqrt();
      const dAlpha = dExponent.mul(alpha).mul(-0.5);
      return { alpha, sigma, dAlpha, dSigma: dExponent.mul(exponent.neg().exp()).mul(0.5).div(sigma) };
    },
    snrInverse(snr) {
      const square = snr.square();
      const exponent = square.div(square.add(1)).log().neg();
      const root = exponent
        .mul(2 * slope)
        .add(betaMin ** 2)
        .sqrt();
      return root.sub(betaMin).div(-slope).add(1);
    },
  };
}

/** alpha = t, with the noise that keeps the variance. */
export const linearVpPath = (): AffinePath => ({
  at(t) {
    const sigma = t.square().neg().add(1).sqrt();
    return { alpha: t, sigma, dAlpha: t.mul(0).add(1), dSigma: t.neg().div(sigma) };
  },
  snrInverse: (snr) => snr.square().div(snr.square().add(1)).sqrt(),
});

/** A quarter of a circle: Nichol & Dhariwal's cosine schedule. */
export const cosinePath = (): AffinePath => ({
  at(t) {
    const angle = t.mul(Math.PI / 2);
    const [sin, cos] = [angle.sin(), angle.cos()];
    return { alpha: sin, sigma: cos, dAlpha: cos.mul(Math.PI / 2), dSigma: sin.mul(-Math.PI / 2) };
  },
  // The angle whose tangent is the ratio, from its cosine: there is no arc tangent among the primitives.
  snrInverse: (snr) => arcTangent(snr).mul(2 / Math.PI),
});

/**
 * From standard noise, the path that a Schrödinger bridge of width sigma has in the mean over its randomness
 * (`schrodingerBridgeFlow`): alpha = t, sigma_t² = (1 - t)² + sigma² t (1 - t). @throws RangeError for a negative sigma.
 */
export function bridgePath(sigma: number): AffinePath {
  if (!(sigma >= 0)) throw new RangeError(`bridgePath: sigma ${sigma}, expected 0 or more`);
  return {
    at(t) {
      const rest = t.neg().add(1);
      const deviation = rest
        .square()
        .add(t.mul(rest).mul(sigma ** 2))
        .sqrt();
      const slope = t
        .mul(-2)
        .add(1)
        .mul(sigma ** 2 / 2)
        .sub(rest);
      return { alpha: t, sigma: deviation, dAlpha: t.mul(0).add(1), dSigma: slope.div(deviation) };
    },
    // t / (1 - t) solves a quadratic equation.
    snrInverse(snr) {
      const wide = snr.mul(sigma ** 2);
      const odds = snr.mul(wide.add(wide.square().add(4).sqrt())).mul(0.5);
      return odds.div(odds.add(1));
    },
  };
}

/** For x > 0, by halving the angle three times and a series that is then exact to float32. */
function arcTangent(x: Tensor): Tensor {
  const half = (y: Tensor) => y.div(y.square().add(1).sqrt().add(1));
  const y = half(half(half(x)));
  const square = y.square();
  const series = [-1 / 11, 1 / 9, -1 / 7, 1 / 5, -1 / 3, 1].reduce<Tensor>(
    (sum, coefficient) => sum.mul(square).add(coefficient),
    square.mul(1 / 13),
  );
  return series.mul(y).mul(8);
}

/** x_t and its velocity. `t` must broadcast with x0 and x1. */
export function onPath(path: AffinePath, x0: Tensor, x1: Tensor, t: Tensor): { x: Tensor; velocity: Tensor } {
  const { alpha, sigma, dAlpha, dSigma } = path.at(t);
  return { x: x0.mul(sigma).add(x1.mul(alpha)), velocity: x0.mul(dSigma).add(x1.mul(dAlpha)) };
}

/** What a model can predict on a path: the data, the noise, or the velocity. */
export type PathPrediction = 'target' | 'epsilon' | 'velocity';

/** Turns a prediction at x_t into another. `t` must broadcast with x. */
export function convertOnPath(
  path: AffinePath,
  [from, to]: readonly [PathPrediction, PathPrediction],
  prediction: Tensor,
  x: Tensor,
  t: Tensor,
): Tensor {
  if (from === to) return prediction;
  const { alpha, sigma, dAlpha, dSigma } = path.at(t);
  // The wanted and the given one as weights of (data, noise), x as well: two equations for two unknowns.
  const weights = { target: [1, 0], epsilon: [0, 1], velocity: [dAlpha, dSigma] } as const;
  const [[a, b], [c, d]] = [weights[from], weights[to]];
  const times = (p: Tensor | number, q: Tensor) => (typeof p === 'number' ? q.mul(p) : p.mul(q));
  const determinant = times(b, alpha).sub(times(a, sigma));
  const ofX = product(c, b).sub(product(d, a)).div(determinant);
  const ofPrediction = times(d, alpha).sub(times(c, sigma)).div(determinant);
  return x.mul(ofX).add(prediction.mul(ofPrediction));

  function product(p: Tensor | number, q: Tensor | number): Tensor {
    if (typeof q !== 'number') return times(p, q);
    return typeof p === 'number' ? alpha.mul(0).add(p * q) : p.mul(q);
  }
}
