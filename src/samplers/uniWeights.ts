/** The weights of UniPC's differences at these ratios of log-SNR, for a step of that z. */
export const uniWeights = (ratios: readonly number[], z: number, B: number): number[] =>
  ratios.length === 1 ? [0.5] : solveLinear(...equations(ratios, z, B));

/** Equation 9 of the paper: powers of the ratios against the phi functions. */
function equations(ratios: readonly number[], z: number, B: number): [matrix: number[][], right: number[]] {
  const right: number[] = [];
  let phi = Math.expm1(z) / z - 1;
  let factorial = 1;
  for (let k = 1; k <= ratios.length; k++) {
    right.push((phi * factorial) / B);
    factorial *= k + 1;
    phi = phi / z - 1 / factorial;
  }
  return [ratios.map((_, k) => ratios.map((ratio) => ratio ** k)), right];
}

/** Gaussian elimination with row exchanges. */
function solveLinear(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]]);
  const n = rows.length;
  for (let i = 0; i < n; i++) {
    const pivot = rows.reduce((best, row, k) => (k > i && Math.abs(row[i]) > Math.abs(rows[best][i]) ? k : best), i);
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const factor = rows[k][i] / rows[i][i];
      for (let j = i; j <= n; j++) rows[k][j] -= factor * rows[i][j];
    }
  }
  return rows.map((row, i) => row[n] / row[i]);
}
