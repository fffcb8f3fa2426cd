/** Quantile functions of the beta distribution, as scipy.stats.beta.ppf: the x in [0, 1] with I_x(a, b) = p. */
export function betaQuantile(p: number, a: number, b: number): number {
  if (!(p >= 0 && p <= 1)) throw new RangeError(`beta quantile: p must lie in [0, 1], got ${p}`);
  if (p === 0 || p === 1) return p;
  let low = 0;
  let high = 1;
  let x = 0.5;
  const logNorm = logGamma(a + b) - logGamma(a) - logGamma(b);
  // Newton's method on the distribution function, kept inside a shrinking bracket.
  for (let i = 0; i < 200; i++) {
    const error = regularizedIncompleteBeta(x, a, b, logNorm) - p;
    if (error > 0) high = x;
    else low = x;
    const density = Math.exp(logNorm + (a - 1) * Math.log(x) + (b - 1) * Math.log1p(-x));
    const newton = x - error / density;
    const next = newton > low && newton < high ? newton : (low + high) / 2;
    if (Math.abs(next - x) <= 1e-16 * x || high - low < Number.MIN_VALUE) return next;
    x = next;
  }
  return x;
}

function regularizedIncompleteBeta(x: number, a: number, b: number, logNorm: number): number {
  const front = Math.exp(logNorm + a * Math.log(x) + b * Math.log1p(-x));
  // The continued fraction converges fast only below the mean; above it, use I_x(a, b) = 1 - I_{1-x}(b, a).
  return x < (a + 1) / (a + b + 2) ? (front * fraction(x, a, b)) / a : 1 - (front * fraction(1 - x, b, a)) / b;
}

/** The continued fraction of the incomplete beta function (DLMF 8.17.22), evaluated by Lentz's method. */
function fraction(x: number, a: number, b: number): number {
  let c = 1;
  let d = 1 / (1 - ((a + b) * x) / (a + 1));
  let value = d;
  for (let m = 1; m < 500; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / (1 + even * d);
    c = 1 + even / c;
    value *= d * c;
    d = 1 / (1 + odd * d);
    c = 1 + odd / c;
    value *= d * c;
    if (Math.abs(d * c - 1) < 1e-16) break;
  }
  return value;
}

/** log Gamma(z) for z > 0: shifted upwards, then Stirling's series. */
function logGamma(z: number): number {
  if (z < 12) return logGamma(z + 1) - Math.log(z);
  const inverse = 1 / z;
  const square = inverse * inverse;
  const series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))));
  return (z - 0.5) * Math.log(z) - z + 0.5 * Math.log(2 * Math.PI) + series;
}
