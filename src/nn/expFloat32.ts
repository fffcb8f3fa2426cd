const { fround } = Math;
/** A fused multiply-add of single-precision numbers (their product is exact in double). */
const fma = (a: number, b: number, c: number): number => fround(a * b + c);

const perLn2 = fround(1 / Math.LN2);
/** ln 2 in two parts, the first of few bits, so that its multiples are exact. */
const ln2High = 0.693145751953125;
const ln2Low = fround(Math.LN2 - ln2High);
/** Minimax polynomial of (e^r - 1 - r) / r² on |r| <= ln 2 / 2. */
const polynomial = [0.00019852761762, 0.00139304355253, 0.00833336077631, 0.0416664853692, 0.16666667163372, 0.5].map(
  fround,
);

/**
 * e^x as PyTorch's processors compute it in single precision (the SLEEF library's expf, within 1 ulp): of a sinusoid's
 * frequency that multiplies timesteps of 999, the last bit shows.
 */
export function expFloat32(x: number): number {
  const power = Math.round(fround(x * perLn2));
  const r = fma(power, -ln2Low, fma(power, -ln2High, x));
  const tail = polynomial.reduce((sum, coefficient) => fma(sum, r, coefficient));
  return fround(fround(1 + fma(fround(r * r), tail, r)) * 2 ** power);
}
