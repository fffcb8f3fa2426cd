import { type NdArray, ndarray } from '../array/index.js';

type Image = NdArray<'float32'>;
/** 3 x 3, row by row. */
type Matrix = Float64Array;

const at = (i: number, j: number): number => 3 * i + j;

function multiply(a: Matrix, b: Matrix): Matrix {
  const product = new Float64Array(9);
  for (let i = 0; i < 3; i++)
    for (let j = 0; j < 3; j++) for (let k = 0; k < 3; k++) product[at(i, j)] += a[at(i, k)] * b[at(k, j)];
  return product;
}

/** A symmetric positive definite matrix to a power, by its eigenvectors (Jacobi's rotations). */
function power(matrix: Matrix, exponent: number): Matrix {
  const a = matrix.slice();
  const v = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
  for (let sweep = 0; sweep < 20; sweep++)
    for (const [p, q] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ]) {
      if (a[at(p, q)] === 0) continue;
      const angle = Math.atan2(2 * a[at(p, q)], a[at(q, q)] - a[at(p, p)]) / 2;
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      const rotate = (m: Matrix, x: number, y: number): void => {
        [m[x], m[y]] = [cos * m[x] - sin * m[y], sin * m[x] + cos * m[y]];
      };
      for (let k = 0; k < 3; k++) rotate(a, at(k, p), at(k, q));
      for (let k = 0; k < 3; k++) rotate(a, at(p, k), at(q, k));
      for (let k = 0; k < 3; k++) rotate(v, at(k, p), at(k, q));
    }
  const scaled = v.map((x, i) => x * a[at(i % 3, i % 3)] ** exponent);
  return multiply(
    scaled,
    v.map((_, i) => v[at(i % 3, Math.floor(i / 3))]),
  );
}

/** Standardised colours with what standardised them, and their scatter plus the identity. */
function colours(name: string, { shape, data }: Image) {
  const count = data.length / 3;
  if (shape.length !== 3 || shape[0] !== 3 || count < 2)
    throw new RangeError(`coral: ${name} [${shape}], expected [3, H, W] of at least 2 pixels`);
  const planes = [0, 1, 2].map((c) => Float64Array.from(data.subarray(c * count, (c + 1) * count)));
  const mean = planes.map((plane) => plane.reduce((sum, x) => sum + x, 0) / count);
  const std = planes.map((plane, c) => Math.sqrt(plane.reduce((sum, x) => sum + (x - mean[c]) ** 2, 0) / (count - 1)));
  const standard = planes.map((plane, c) => plane.map((x) => (x - mean[c]) / (std[c] || 1)));
  const scatter = new Float64Array(9);
  for (let i = 0; i < 3; i++)
    for (let j = 0; j < 3; j++)
      scatter[at(i, j)] = standard[i].reduce((sum, x, k) => sum + x * standard[j][k], i === j ? 1 : 0);
  return { mean, std, standard, scatter };
}

/**
 * Gives a picture the colours of another: mean, spread and correlation of its channels (CORAL, Sun, Feng & Saenko 2016,
 * of standardised colours as in naoto0804/pytorch-AdaIN). A style recoloured with the content's colours keeps the content's.
 * @param source,target [3, H, W] in any one range; sizes may differ. @returns [3, H, W] of the source, not clamped.
 * @throws RangeError for another shape.
 */
export function coral(source: Image, target: Image): Image {
  const [from, to] = [colours('source', source), colours('target', target)];
  const transfer = multiply(power(to.scatter, 0.5), power(from.scatter, -0.5));
  const count = source.data.length / 3;
  const out = new Float32Array(source.data.length);
  for (let c = 0; c < 3; c++)
    for (let k = 0; k < count; k++) {
      const x = [0, 1, 2].reduce((sum, j) => sum + transfer[at(c, j)] * from.standard[j][k], 0);
      out[c * count + k] = x * to.std[c] + to.mean[c];
    }
  return ndarray(out, source.shape);
}
