import { type NdArray, ndarray } from '../../src/array/index.js';

/** Real matrices over [Re x, Im x] [H, N, N] as complex ones over states and their conjugates: pairs [H, N, N, 2]. */
export function conjugatePairs({ data, shape: [systems, n] }: NdArray): NdArray {
  const half = n / 2;
  const out: number[] = [];
  for (let h = 0; h < systems; h++)
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) {
        const at = (row: number, column: number) => Number(data[(h * n + row) * n + column]);
        const [k, l] = [i % half, j % half];
        const sign = i < half ? 1 : -1;
        const same = i < half === j < half ? 1 : -1;
        out.push(
          (at(k, l) + same * at(k + half, l + half)) / 2,
          (sign * (at(k + half, l) - same * at(k, l + half))) / 2,
        );
      }
  return ndarray(out, [systems, n, n, 2]);
}

/** [Re x, Im x] of [..., N] as states and their conjugates: pairs [..., N, 2]. `scale` multiplies (re, im). */
export function withConjugates(
  { data }: { data: ArrayLike<unknown> },
  shape: readonly number[],
  [real, imaginary]: readonly [number, number] = [1, 1],
): NdArray {
  const n = shape[shape.length - 1];
  const half = n / 2;
  const out = Array.from({ length: data.length }, (_, i) => {
    const row = i - (i % n);
    const k = (i % n) % half;
    const sign = i % n < half ? 1 : -1;
    return [real * Number(data[row + k]), sign * imaginary * Number(data[row + half + k])];
  });
  return ndarray(out.flat(), [...shape, 2]);
}

/** The rows c of c (1 - A^length) = given, in double precision. @param given [channels, H, N] */
export function solveOutput(a: NdArray, given: readonly number[], length: number): number[] {
  const [systems, n] = a.shape;
  return Array.from({ length: given.length / n }, (_, row) => {
    const h = row % systems;
    const matrix = Array.from({ length: n }, (_, i) =>
      Array.from({ length: n }, (_, j) => Number(a.data[(h * n + i) * n + j])),
    );
    let power = matrix.map((_, i) => matrix.map((_, j) => Number(i === j)));
    for (let k = 0; k < length; k++) power = product(power, matrix);
    const system = matrix.map((_, i) => [...matrix.map((_, j) => Number(i === j) - power[j][i]), given[row * n + i]]);
    return solve(system);
  }).flat();
}

const product = (a: number[][], b: number[][]): number[][] =>
  a.map((row) => b[0].map((_, j) => row.reduce((sum, x, k) => sum + x * b[k][j], 0)));

/** Gaussian elimination with pivots of a matrix with the right side as its last column. */
function solve(rows: number[][]): number[] {
  const n = rows.length;
  for (let k = 0; k < n; k++) {
    const best = rows.slice(k).reduce((top, row, i) => (Math.abs(row[k]) > Math.abs(rows[top][k]) ? i + k : top), k);
    [rows[k], rows[best]] = [rows[best], rows[k]];
    for (let i = k + 1; i < n; i++) {
      const factor = rows[i][k] / rows[k][k];
      for (let j = k; j <= n; j++) rows[i][j] -= factor * rows[k][j];
    }
  }
  const x = new Array<number>(n).fill(0);
  for (let k = n - 1; k >= 0; k--)
    x[k] = (rows[k][n] - x.reduce((sum, value, j) => (j > k ? sum + rows[k][j] * value : sum), 0)) / rows[k][k];
  return x;
}
