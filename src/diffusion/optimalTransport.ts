import { type NdArray, sizeOf } from '../array/index.js';
import type { Generator } from '../random/index.js';

/** Squared distances between the samples of two batches [N, ...] and [M, ...]: [N][M]. */
export function squaredDistances(a: NdArray<'float32'>, b: NdArray<'float32'>): Float64Array[] {
  const size = sizeOf(a.shape.slice(1));
  if (size !== sizeOf(b.shape.slice(1)))
    throw new RangeError(`optimal transport: samples of [${a.shape.slice(1)}] and [${b.shape.slice(1)}]`);
  return Array.from({ length: a.shape[0] }, (_, i) =>
    Float64Array.from({ length: b.shape[0] }, (_, j) => {
      let sum = 0;
      for (let k = 0; k < size; k++) sum += (a.data[i * size + k] - b.data[j * size + k]) ** 2;
      return sum;
    }),
  );
}

/**
 * The cheapest one-to-one assignment of rows to columns of a square cost matrix (Jonker & Volgenant 1987: shortest
 * augmenting paths, cubic in its size): `result[row]` is the column.
 */
export function assignment(cost: readonly ArrayLike<number>[]): Int32Array {
  const n = cost.length;
  // Row 0 and column 0 stand for "none".
  const [ofRow, ofColumn] = [new Float64Array(n + 1), new Float64Array(n + 1)];
  const rowAt = new Int32Array(n + 1);
  for (let row = 1; row <= n; row++) {
    const [least, way, used] = [new Float64Array(n + 1).fill(Infinity), new Int32Array(n + 1), new Uint8Array(n + 1)];
    let column = 0;
    rowAt[0] = row;
    do {
      used[column] = 1;
      const from = rowAt[column];
      let [delta, next] = [Infinity, 0];
      for (let j = 1; j <= n; j++) {
        if (used[j]) continue;
        const reduced = cost[from - 1][j - 1] - ofRow[from] - ofColumn[j];
        if (reduced < least[j]) [least[j], way[j]] = [reduced, column];
        if (least[j] < delta) [delta, next] = [least[j], j];
      }
      for (let j = 0; j <= n; j++) {
        if (used[j]) {
          ofRow[rowAt[j]] += delta;
          ofColumn[j] -= delta;
        } else least[j] -= delta;
      }
      column = next;
    } while (rowAt[column] !== 0);
    for (; column !== 0; column = way[column]) rowAt[column] = rowAt[way[column]];
  }
  const columnOf = new Int32Array(n);
  for (let j = 1; j <= n; j++) columnOf[rowAt[j] - 1] = j - 1;
  return columnOf;
}

/**
 * Minibatch optimal transport (Tong et al. 2024): which x1 goes with each x0 so that paths are short and do not cross.
 * @returns positions in x1, each once (torchcfm draws pairs with replacement from the same plan).
 */
export const exactCoupling = (x0: NdArray<'float32'>, x1: NdArray<'float32'>): Int32Array =>
  assignment(squaredDistances(x0, x1));

/**
 * Entropic optimal transport between uniform weights (Cuturi 2013) by Sinkhorn's iteration in the log domain, until the
 * rows' sums are right to 1e-12 or `most` iterations are done. @returns the plan [N][M], which sums to 1.
 */
export function sinkhornPlan(
  cost: readonly ArrayLike<number>[],
  regularization: number,
  most = 20_000,
): Float64Array[] {
  if (!(regularization > 0)) throw new RangeError(`sinkhorn: regularization ${regularization}, expected more than 0`);
  const [n, m] = [cost.length, cost[0].length];
  const [f, g] = [new Float64Array(n), new Float64Array(m)];
  const soft = (values: Iterable<number>): number => {
    const all = [...values];
    const top = Math.max(...all);
    return top + Math.log(all.reduce((sum, x) => sum + Math.exp(x - top), 0));
  };
  const score = (i: number, j: number) => f[i] + g[j] - cost[i][j] / regularization;
  for (let iteration = 0; iteration < most; iteration++) {
    for (let j = 0; j < m; j++) g[j] -= soft(f.map((_, i) => score(i, j))) + Math.log(m);
    let error = 0;
    for (let i = 0; i < n; i++) {
      const sum = soft(g.map((_, j) => score(i, j)));
      error = Math.max(error, Math.abs(Math.exp(sum) - 1 / n));
      f[i] -= sum + Math.log(n);
    }
    if (error < 1e-12) break;
  }
  return Array.from({ length: n }, (_, i) => Float64Array.from({ length: m }, (_, j) => Math.exp(score(i, j))));
}

/** Pairs drawn from a plan: as many as it has rows, the rows in order, a column for each. */
export function drawCoupling(plan: readonly Float64Array[], rng: Generator): Int32Array {
  const draws = rng.rand([plan.length]).data;
  return Int32Array.from(plan, (row, i) => {
    const total = row.reduce((a, b) => a + b, 0);
    let below = 0;
    for (const [j, share] of row.entries()) {
      below += share;
      if (draws[i] * total < below) return j;
    }
    return row.length - 1;
  });
}
