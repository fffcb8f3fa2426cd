import type { Generator } from '../../random/index.js';

/** A square matrix in float64, row by row. */
export interface LuFactors {
  /** Row i of P's product is row `rows[i]` of the matrix: A[rows[i]] = (L U)[i]. */
  readonly rows: Int32Array;
  /** L below the diagonal (which is 1), U on and above it. */
  readonly lu: Float64Array;
}

/** Gaussian elimination with partial pivoting. @param name whose matrix it is. @throws RangeError when it is singular. */
export function luFactors(name: string, matrix: ArrayLike<number>, n: number): LuFactors {
  const lu = Float64Array.from(matrix);
  const rows = Int32Array.from({ length: n }, (_, i) => i);
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(lu[i * n + k]) > Math.abs(lu[pivot * n + k])) pivot = i;
    if (!(Math.abs(lu[pivot * n + k]) > 0))
      throw new RangeError(`${name}: its ${n} x ${n} matrix is singular, expected an invertible one`);
    if (pivot !== k) {
      for (let j = 0; j < n; j++) [lu[k * n + j], lu[pivot * n + j]] = [lu[pivot * n + j], lu[k * n + j]];
      [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    }
    for (let i = k + 1; i < n; i++) {
      lu[i * n + k] /= lu[k * n + k];
      const factor = lu[i * n + k];
      for (let j = k + 1; j < n; j++) lu[i * n + j] -= factor * lu[k * n + j];
    }
  }
  return { rows, lu };
}

/** @throws RangeError when the matrix is singular. */
export function inverse(name: string, matrix: ArrayLike<number>, n: number): Float64Array {
  const { rows, lu } = luFactors(name, matrix, n);
  const result = new Float64Array(n * n);
  for (let column = 0; column < n; column++) {
    const x = Float64Array.from(rows, (row) => Number(row === column));
    for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) x[i] -= lu[i * n + j] * x[j];
    for (let i = n - 1; i >= 0; i--) {
      for (let j = i + 1; j < n; j++) x[i] -= lu[i * n + j] * x[j];
      x[i] /= lu[i * n + i];
    }
    for (let i = 0; i < n; i++) result[i * n + column] = x[i];
  }
  return result;
}

/** log |det|. @throws RangeError when the matrix is singular. */
export function logAbsDet(name: string, matrix: ArrayLike<number>, n: number): number {
  const { lu } = luFactors(name, matrix, n);
  let sum = 0;
  for (let i = 0; i < n; i++) sum += Math.log(Math.abs(lu[i * n + i]));
  return sum;
}

/** Rows that are orthogonal and of length 1: Gram and Schmidt's, twice, of normal numbers. */
export function randomRotation(n: number, rng: Generator): Float64Array {
  const q = Float64Array.from(rng.randn([n, n], 'float64').data);
  for (let i = 0; i < n; i++) {
    const row = q.subarray(i * n, (i + 1) * n);
    for (let pass = 0; pass < 2; pass++)
      for (let k = 0; k < i; k++) {
        const other = q.subarray(k * n, (k + 1) * n);
        const share = row.reduce((sum, x, j) => sum + x * other[j], 0);
        for (let j = 0; j < n; j++) row[j] -= share * other[j];
      }
    const length = Math.hypot(...row);
    for (let j = 0; j < n; j++) row[j] /= length;
  }
  return q;
}
