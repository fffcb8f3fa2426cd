/** The error function, to about 1e-15: Kummer's series, whose terms are all of one sign. */
export function erf(x: number): number {
  if (!(Math.abs(x) < 6)) return Number.isNaN(x) ? x : Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** The inverse of `erf` on [-1, 1]: Winitzki's estimate (2008), then two Halley steps. */
export function erfinv(y: number): number {
  if (!(Math.abs(y) < 1)) return Math.abs(y) === 1 ? y * Number.POSITIVE_INFINITY : Number.NaN;
  const a = 0.147;
  const logarithm = Math.log1p(-y * y);
  const half = 2 / (Math.PI * a) + logarithm / 2;
  let x = Math.sign(y) * Math.sqrt(Math.sqrt(half * half - logarithm / a) - half);
  for (let step = 0; step < 2; step++) {
    const newton = ((erf(x) - y) * Math.sqrt(Math.PI) * Math.exp(x * x)) / 2;
    x -= newton / (1 + x * newton);
  }
  return x;
}
