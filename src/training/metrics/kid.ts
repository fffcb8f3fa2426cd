import type { NdArray } from '../../array/index.js';
import { Generator } from '../../random/index.js';
import { dotTiles, type Matrix, tileSide } from './dots.js';
import { checkSameWidth, featureMatrix } from './features.js';

export interface KidOptions {
  /** 100 by default. */
  subsets?: number;
  /** 1000 by default, or all pictures when there are fewer. */
  subsetSize?: number;
  /** Of the choice of subsets. */
  seed?: number;
}

/** Above this number of pairs the kernel is computed for each subset anew, else once for all. */
const maxStoredPairs = 2 ** 26;

function takeRows({ data, width }: Matrix, indices: Int32Array): Matrix {
  const taken = new Float32Array(indices.length * width);
  for (const [to, from] of indices.entries()) taken.set(data.subarray(from * width, (from + 1) * width), to * width);
  return { data: taken, rows: indices.length, width };
}

/** k(x, y) = (x.y / d + 1)^3 for all rows; below the diagonal it is left 0 when both are the same. */
function kernel(a: Matrix, b: Matrix): Float32Array {
  const values = new Float32Array(a.rows * b.rows);
  for (const tile of dotTiles(a, b))
    for (let i = 0; i < tile.rows; i++)
      for (let j = 0; j < tile.columns; j++) {
        const value = tile.dots[i * tileSide + j] / a.width + 1;
        values[(tile.i + i) * b.rows + tile.j + j] = value * value * value;
      }
  return values;
}

/**
 * The mean of the kernel over the pairs of each subset: without i = j, and each pair once, when both are the same.
 * @param ofA a list of ascending rows for each subset, and so `ofB`.
 */
function kernelMeans(a: Matrix, b: Matrix, ofA: readonly Int32Array[], ofB: readonly Int32Array[]): number[] {
  const mean = (values: Float32Array, stride: number, rows: Int32Array, columns: Int32Array): number => {
    let [sum, pairs] = [0, 0];
    for (let i = 0; i < rows.length; i++)
      for (let j = a === b ? i + 1 : 0; j < columns.length; j++, pairs++) sum += values[rows[i] * stride + columns[j]];
    return sum / pairs;
  };
  if (a.rows * b.rows <= maxStoredPairs) {
    const values = kernel(a, b);
    return ofA.map((rows, s) => mean(values, b.rows, rows, ofB[s]));
  }
  const everyRow = Int32Array.from(ofA[0], (_, i) => i);
  return ofA.map((rows, s) => {
    const left = takeRows(a, rows);
    const right = a === b ? left : takeRows(b, ofB[s]);
    return mean(kernel(left, right), right.rows, everyRow, everyRow);
  });
}

/**
 * Kernel inception distance (Binkowski et al. 2018, arXiv:1801.01401): the unbiased estimate of the squared maximum mean
 * discrepancy under the kernel (x.y / d + 1)^3, over random subsets. Around 0 (also below) for equal distributions.
 * @param real [n, d] and @param generated [m, d] features; at least two pictures each.
 * @returns mean and standard deviation over the subsets; one subset of everything when nothing is left out.
 */
export function kid(
  real: NdArray<'float32'>,
  generated: NdArray<'float32'>,
  { subsets = 100, subsetSize = 1000, seed = 0 }: KidOptions = {},
): { mean: number; std: number } {
  const [x, y] = [featureMatrix('KID', real), featureMatrix('KID', generated)];
  checkSameWidth('KID', x.width, y.width);
  const size = Math.min(subsetSize, x.rows, y.rows);
  if (!(subsets >= 1 && size >= 2))
    throw new RangeError(`KID: ${subsets} subsets of ${size}, expected 1 or more of 2 or more`);
  const count = size === x.rows && size === y.rows ? 1 : subsets;
  const rng = new Generator(seed);
  const draw = (rows: number): Int32Array[] =>
    Array.from({ length: count }, () => rng.randperm(rows).slice(0, size).sort());
  const [ofX, ofY] = [draw(x.rows), draw(y.rows)];
  const [xx, yy, xy] = [kernelMeans(x, x, ofX, ofX), kernelMeans(y, y, ofY, ofY), kernelMeans(x, y, ofX, ofY)];
  const values = xx.map((value, s) => value + yy[s] - 2 * xy[s]);
  const mean = values.reduce((a, b) => a + b) / count;
  return { mean, std: Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / count) };
}
