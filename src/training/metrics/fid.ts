import type { NdArray } from '../../array/index.js';
import { dots, type Matrix } from './dots.js';
import { checkSameWidth, featureMatrix } from './features.js';
import { symmetricEigenvalues } from './symmetricEigenvalues.js';

/** What the Fréchet distance needs to know of a set of features; it can be kept instead of them. */
export interface FeatureStatistics {
  /** [d] */
  readonly mean: Float64Array;
  /** [d, d], over n - 1. */
  readonly covariance: Float64Array;
}

/** @param features [n, d], n of at least 2. */
export function featureStatistics(features: NdArray<'float32'>): FeatureStatistics {
  const { data, rows, width } = featureMatrix('FID', features);
  const mean = new Float64Array(width);
  for (let i = 0; i < data.length; i++) mean[i % width] += data[i] / rows;
  const centred = new Float64Array(data.length); // [d, n]
  for (let i = 0; i < rows; i++) for (let j = 0; j < width; j++) centred[j * rows + i] = data[i * width + j] - mean[j];
  const matrix: Matrix = { data: centred, rows: width, width: rows };
  const covariance = (dots(matrix, matrix).data as Float64Array).map((sum) => sum / (rows - 1));
  return { mean, covariance };
}

/**
 * Cholesky with pivots of a positive semi-definite matrix S = L L^T, of any rank r.
 * @returns L^T, [r, d].
 */
function choleskyRows(s: Float64Array, d: number): Matrix {
  const rest = Float64Array.from({ length: d }, (_, i) => s[i * d + i]);
  const least = rest.reduce((a, b) => Math.max(a, b), 0) * d * Number.EPSILON;
  const rows: Float64Array[] = [];
  while (rows.length < d) {
    const pivot = rest.reduce((best, x, i) => (x > rest[best] ? i : best), 0);
    if (!(rest[pivot] > least)) break;
    const row = s.slice(pivot * d, (pivot + 1) * d);
    for (const earlier of rows) {
      const factor = earlier[pivot];
      for (let i = 0; i < d; i++) row[i] -= factor * earlier[i];
    }
    const scale = 1 / Math.sqrt(rest[pivot]);
    for (let i = 0; i < d; i++) {
      row[i] *= scale;
      rest[i] -= row[i] * row[i];
    }
    rest[pivot] = 0;
    rows.push(row);
  }
  const data = new Float64Array(rows.length * d);
  for (const [i, row] of rows.entries()) data.set(row, i * d);
  return { data, rows: rows.length, width: d };
}

/**
 * The Fréchet distance of two Gaussians (Heusel et al. 2017, arXiv:1706.08500):
 * |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With S1 = L L^T, the eigenvalues of S1 S2 are those of the symmetric
 * L^T S2 L, so the trace of the root is the sum of their roots, for singular covariances too.
 */
export function frechetDistance(a: FeatureStatistics, b: FeatureStatistics): number {
  const d = a.mean.length;
  checkSameWidth('FID', d, b.mean.length);
  let distance = 0;
  for (let i = 0; i < d; i++)
    distance += (a.mean[i] - b.mean[i]) ** 2 + a.covariance[i * d + i] + b.covariance[i * d + i];
  const root = choleskyRows(a.covariance, d);
  const inner = dots(dots(root, { data: b.covariance, rows: d, width: d }), root);
  for (const value of symmetricEigenvalues(inner.data, inner.rows)) distance -= 2 * Math.sqrt(Math.max(0, value));
  return distance;
}

/**
 * Fréchet distance between features of real and generated pictures, [n, d] each. Biased: compare only figures that were
 * made with the same features and the same n.
 */
export const fid = (real: NdArray<'float32'>, generated: NdArray<'float32'>): number =>
  frechetDistance(featureStatistics(real), featureStatistics(generated));
