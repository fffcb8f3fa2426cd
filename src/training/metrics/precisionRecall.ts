import type { NdArray } from '../../array/index.js';
import { dotTiles, type Matrix, tileSide } from './dots.js';
import { checkSameWidth, featureMatrix } from './features.js';

function squaredNorms({ data, rows, width }: Matrix): Float64Array {
  const norms = new Float64Array(rows);
  for (let i = 0; i < data.length; i++) norms[Math.floor(i / width)] += data[i] * data[i];
  return norms;
}

/** Calls `visit` with the squared distance of every row of `a` to every row of `b`; of each pair once when they are the same. */
function visitDistances(a: Matrix, b: Matrix, visit: (i: number, j: number, squared: number) => void): void {
  const [ofA, ofB] = [squaredNorms(a), squaredNorms(b)];
  for (const { i: top, j: left, rows, columns, dots } of dotTiles(a, b))
    for (let i = 0; i < rows; i++)
      for (let j = a === b && top === left ? i + 1 : 0; j < columns; j++)
        visit(top + i, left + j, ofA[top + i] + ofB[left + j] - 2 * dots[i * tileSide + j]);
}

/** The squared distance of every row to its k-th nearest other row. */
function radii(points: Matrix, k: number): Float64Array {
  const nearest = new Float64Array(points.rows * k).fill(Number.POSITIVE_INFINITY); // ascending, k for each row
  const insert = (row: number, squared: number): void => {
    let at = row * k + k - 1;
    if (squared >= nearest[at]) return;
    for (; at > row * k && nearest[at - 1] > squared; at--) nearest[at] = nearest[at - 1];
    nearest[at] = squared;
  };
  visitDistances(points, points, (i, j, squared) => {
    insert(i, squared);
    insert(j, squared);
  });
  return Float64Array.from({ length: points.rows }, (_, row) => nearest[row * k + k - 1]);
}

const share = (marks: Uint8Array): number => marks.reduce((sum, mark) => sum + mark, 0) / marks.length;

/**
 * Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991): the share of generated pictures that lie
 * nearer to some real one than its k-th nearest real neighbour does (are they plausible?), and the share of real ones so
 * near to a generated one (is everything covered?).
 * @param real [n, d] and @param generated [m, d] features, more than k pictures each.
 */
export function precisionRecall(
  real: NdArray<'float32'>,
  generated: NdArray<'float32'>,
  { k = 3 }: { k?: number } = {},
): { precision: number; recall: number } {
  if (!Number.isInteger(k) || k < 1) throw new RangeError(`precision and recall: k ${k}, expected 1, 2 ...`);
  const what = 'precision and recall';
  const [x, y] = [featureMatrix(what, real, k + 1), featureMatrix(what, generated, k + 1)];
  checkSameWidth(what, x.width, y.width);
  const [ofReal, ofGenerated] = [radii(x, k), radii(y, k)];
  const [covered, plausible] = [new Uint8Array(x.rows), new Uint8Array(y.rows)];
  visitDistances(x, y, (i, j, squared) => {
    if (squared <= ofReal[i]) plausible[j] = 1;
    if (squared <= ofGenerated[j]) covered[i] = 1;
  });
  return { precision: share(plausible), recall: share(covered) };
}
