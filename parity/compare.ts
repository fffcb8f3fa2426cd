import { type NdArray, type TypedArray, toFloat32 } from '../src/array/index.js';
import type { Tolerance } from './tolerances.js';

export interface Comparison {
  readonly tensor: string;
  readonly pass: boolean;
  /** Worst error in the tolerance's measure; undefined when there was nothing comparable. */
  readonly error?: number;
  readonly tolerance: number;
  /** Why it failed; empty when it passed. */
  readonly reason: string;
}

const describe = ({ dtype, shape }: NdArray): string => `${dtype} [${shape}]`;
/** Elements as numbers: 16-bit formats are held as bits. */
const valuesOf = (array: NdArray): TypedArray => (/float16$/.test(array.dtype) ? toFloat32(array) : array).data;

/**
 * Relative error: max|a - b| / max|b| over the whole tensor, b being the reference (max|a - b| when b is all zeros).
 * A difference of dtype or shape, and any value that is not finite, fails.
 */
export function compare(tensor: string, ours: NdArray | undefined, reference: NdArray, rule: Tolerance): Comparison {
  const { tolerance, absolute } = rule;
  const fail = (reason: string): Comparison => ({ tensor, pass: false, tolerance, reason: `${tensor}: ${reason}` });
  if (ours === undefined) return fail('missing from our outputs');
  if (describe(ours) !== describe(reference)) return fail(`expected ${describe(reference)}, got ${describe(ours)}`);
  const [a, b] = [valuesOf(ours), valuesOf(reference)];
  const bad = firstNotFinite(a);
  if (bad >= 0) return fail(`${a[bad]} at element ${bad}`);
  const { difference, magnitude, worst } = distances(a, b);
  const error = absolute || magnitude === 0 ? difference : difference / magnitude;
  if (error <= tolerance) return { tensor, pass: true, error, tolerance, reason: '' };
  const found = `${a[worst]} for ${b[worst]} at element ${worst}`;
  return { ...fail(`error ${error.toPrecision(3)} above ${tolerance}, ${found}`), error };
}

const firstNotFinite = (data: TypedArray): number => {
  for (let i = 0; i < data.length; i++) if (!Number.isFinite(Number(data[i]))) return i;
  return -1;
};

/** Integers are compared as they are, so that int64 beyond 2^53 counts exactly. */
function distances(a: TypedArray, b: TypedArray): { difference: number; magnitude: number; worst: number } {
  let difference = 0;
  let magnitude = 0;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const apart = Math.abs(Number(a[i]) - Number(b[i]));
    const distance = a[i] === b[i] ? 0 : typeof a[i] === 'bigint' ? Math.max(1, apart) : apart;
    if (!(distance <= difference)) {
      difference = distance;
      worst = i;
    }
    magnitude = Math.max(magnitude, Math.abs(Number(b[i])));
  }
  return { difference, magnitude, worst };
}

/** The comparison that says most about a case: a failure before a pass, then the one nearest to its tolerance. */
export function worstOf(comparisons: readonly Comparison[]): Comparison | undefined {
  const strain = ({ error = Number.POSITIVE_INFINITY, tolerance }: Comparison): number =>
    error === 0 ? 0 : error / tolerance;
  return [...comparisons].sort(
    (a, b) => Number(a.pass) - Number(b.pass) || strain(b) - strain(a) || b.tolerance - a.tolerance,
  )[0];
}
