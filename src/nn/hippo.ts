import { skewEigen } from './skewEigen.js';

export type HippoMeasure =
  | 'legt'
  | 'legs'
  | 'legsd'
  | 'lagt'
  | 'tlagt'
  | 'lmu'
  | 'fourier'
  | 'fout'
  | 'foud'
  | 'fourier_diag'
  | 'fourier_decay'
  | 'fourier2';

/** In double precision, row by row. */
export interface Hippo {
  /** [N, N] */
  readonly a: Float64Array;
  /** [N] */
  readonly b: Float64Array;
}

const matrix = (n: number, f: (row: number, column: number) => number): Float64Array =>
  Float64Array.from({ length: n * n }, (_, i) => f(Math.floor(i / n), i % n));
const vector = (n: number, f: (i: number) => number): Float64Array => Float64Array.from({ length: n }, (_, i) => f(i));

/** Amplitudes of the real Fourier basis: 1, 0, sqrt 2, 0, sqrt 2 ... */
const fourierInput = (i: number): number => (i === 0 ? 1 : i % 2 === 0 ? Math.SQRT2 : 0);

/** Turns the states 2k and 2k + 1 into each other with k times the unit frequency. */
function oscillation(row: number, column: number, unit: number): number {
  const low = Math.min(row, column);
  if (Math.abs(row - column) !== 1 || low % 2) return 0;
  return ((row > column ? unit : -unit) * low) / 2;
}

/** Fourier measures: the oscillation less `strength` times the rank-one matrix of the input. */
function fourier(n: number, unit: number, strength: number): Hippo {
  const a = matrix(n, (i, j) => oscillation(i, j, unit) - strength * fourierInput(i) * fourierInput(j));
  return { a, b: vector(n, (i) => strength * fourierInput(i)) };
}

/**
 * HiPPO: the matrices of x' = A x + B u whose state holds the coefficients of the past of u in a basis of
 * polynomials or waves (Gu et al. 2020, 2022). As in state-spaces/s4.
 * @throws RangeError for an unknown measure, or an odd N of a Fourier measure.
 */
export function hippo(measure: HippoMeasure, n: number, { beta = 1 }: { beta?: number } = {}): Hippo {
  if (/^fou/.test(measure) && n % 2)
    throw new RangeError(`hippo: ${n} states of '${measure}', expected an even number`);
  const root = (i: number) => Math.sqrt(2 * i + 1);
  const legs = (i: number, j: number) => (i > j ? -root(i) * root(j) : i === j ? -(i + 1) : 0);
  switch (measure) {
    case 'legt':
      return {
        a: matrix(n, (i, j) => -0.5 * root(i) * root(j) * (i < j ? (-1) ** (j - i) : 1)),
        b: vector(n, (i) => 0.5 * root(i)),
      };
    case 'lmu':
      return {
        a: matrix(n, (i, j) => (i < j ? -1 : (-1) ** (i - j + 1)) * (2 * i + 1)),
        b: vector(n, (i) => (-1) ** i * (2 * i + 1)),
      };
    case 'legs':
      return { a: matrix(n, legs), b: vector(n, root) };
    case 'legsd':
      return { a: matrix(n, (i, j) => legs(i, j) + 0.5 * root(i) * root(j)), b: vector(n, (i) => root(i) / 2) };
    case 'lagt':
      return { a: matrix(n, (i, j) => (i === j ? -0.5 : i > j ? -1 : 0)), b: vector(n, () => beta) };
    case 'tlagt':
      return { a: matrix(n, (i, j) => (i === j ? (1 - beta) / 2 - 1 : i > j ? -1 : 0)), b: vector(n, () => beta) };
    case 'fourier':
    case 'fout':
      return fourier(n, Math.PI, 1);
    case 'fourier_decay':
      return fourier(n, Math.PI, 0.5);
    case 'fourier2':
      return fourier(n, 2 * Math.PI, 2);
    case 'foud':
    case 'fourier_diag':
      return {
        a: matrix(n, (i, j) => oscillation(i, j, 2 * Math.PI) - (i === j ? 0.5 : 0)),
        b: vector(n, fourierInput),
      };
    default:
      throw new RangeError(`hippo: measure '${measure}' is unknown`);
  }
}

/**
 * Rows P [rank, N] for which A + sum of P Pᵀ is normal (skew-symmetric, plus a multiple of one).
 * @throws RangeError for a rank below the measure's own (2 for legt, else 1), and for a measure without such rows.
 */
export function rankCorrection(measure: HippoMeasure, n: number, rank = 1): Float64Array[] {
  const rows = correctionRows(measure, n);
  if (rank < rows.length)
    throw new RangeError(`hippo: '${measure}' needs a correction of rank ${rows.length}, got ${rank}`);
  while (rows.length < rank) rows.push(new Float64Array(n));
  return rows;
}

function correctionRows(measure: HippoMeasure, n: number): Float64Array[] {
  switch (measure) {
    case 'legs':
      return [vector(n, (i) => Math.sqrt(i + 0.5))];
    case 'legt':
      return [1, 0].map((parity) => vector(n, (i) => (i % 2 === parity ? Math.sqrt(i + 0.5) : 0)));
    case 'lagt':
      return [vector(n, () => Math.SQRT1_2)];
    case 'fourier':
    case 'fout':
      return [vector(n, fourierInput)];
    case 'fourier_decay':
      return [vector(n, (i) => fourierInput(i) * Math.SQRT1_2)];
    case 'fourier2':
      return [vector(n, (i) => fourierInput(i) * Math.SQRT2)];
    case 'foud':
    case 'fourier_diag':
    case 'legsd':
      return [new Float64Array(n)];
    default:
      throw new RangeError(`hippo: '${measure}' has no low-rank correction`);
  }
}

/** A complex vector as its two parts. */
export interface ComplexVector {
  readonly re: Float64Array;
  readonly im: Float64Array;
}

/** Diagonal plus low rank: A = V (W - P P*) V*, one of each pair of conjugate states. */
export interface Nplr {
  /** Eigenvalues, ascending in their negative imaginary parts [N / 2] */
  readonly w: ComplexVector;
  /** rank vectors [N / 2] */
  readonly p: readonly ComplexVector[];
  /** [N / 2] */
  readonly b: ComplexVector;
  /** Eigenvectors: N / 2 columns of length N. */
  readonly v: readonly ComplexVector[];
}

export interface NplrOptions {
  /** Rows of the low-rank correction; default the measure's own. */
  readonly rank?: number;
  /** Bound of the imaginary part of B; null for none; default 2. */
  readonly clip?: number | null;
  /** Eigenvectors are known but for a phase: makes the choice, given a vector, by multiplying it with the result. */
  readonly phase?: (v: ComplexVector, column: number) => readonly [number, number];
}

/**
 * The diagonal plus low-rank form of a HiPPO matrix that S4 computes with (Gu et al. 2022), in double precision.
 * @throws RangeError as {@link hippo} and {@link rankCorrection}.
 */
export function nplr(measure: HippoMeasure, n: number, { rank, clip = 2, phase }: NplrOptions = {}): Nplr {
  const { a, b } = hippo(measure, n);
  const rows = rankCorrection(measure, n, rank ?? (measure === 'legt' ? 2 : 1));
  const normal = a.map((x, i) => x + rows.reduce((sum, row) => sum + row[Math.floor(i / n)] * row[i % n], 0));
  const real = vector(n, (i) => normal[i * n + i]).reduce((sum, x) => sum + x, 0) / n;
  const half = n / 2;
  const { values, vectors } = skewEigen(normal, n);
  const v = vectors.slice(0, half).map((x, column) => turned(x, phase?.(x, column) ?? [1, 0]));
  // The Fourier measures' frequency zero has two states and so any basis; this is the source's.
  if (Math.hypot(real, values[half - 1]) < 1e-4)
    v[half - 1] = {
      re: vector(n, (i) => (i === 0 ? Math.SQRT1_2 : 0)),
      im: vector(n, (i) => (i === 1 ? Math.SQRT1_2 : 0)),
    };
  const inBasis = (x: Float64Array): ComplexVector => ({
    re: vector(half, (k) => x.reduce((sum, value, i) => sum + value * v[k].re[i], 0)),
    im: vector(half, (k) => -x.reduce((sum, value, i) => sum + value * v[k].im[i], 0)),
  });
  const { re, im } = inBasis(b);
  return {
    w: { re: vector(half, () => real), im: values.slice(0, half) },
    p: rows.map(inBasis),
    b: { re, im: clip === null ? im : im.map((x) => Math.min(Math.max(x, -clip), clip)) },
    v,
  };
}

const turned = ({ re, im }: ComplexVector, [c, s]: readonly [number, number]): ComplexVector => ({
  re: re.map((x, i) => x * c - im[i] * s),
  im: re.map((x, i) => x * s + im[i] * c),
});
