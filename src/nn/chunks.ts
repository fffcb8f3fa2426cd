import { ndarray } from '../array/index.js';
import { constant, pad, type Tensor } from '../tensor/index.js';

/** Zeros after the end of an axis, up to a multiple of `size`. */
export function toMultiple(x: Tensor, axis: number, size: number): Tensor {
  const missing = (size - (x.shape[axis] % size)) % size;
  if (missing === 0) return x;
  return pad(
    x,
    x.shape.map((_, i) => [0, i === axis ? missing : 0]),
  );
}

/** [..., L, ...] as [..., L / size, size, ...]. */
export const chunked = (x: Tensor, axis: number, size: number): Tensor =>
  x.reshape([...x.shape.slice(0, axis), x.shape[axis] / size, size, ...x.shape.slice(axis + 1)]);

/** Ones on and below the diagonal [n, n]. */
export const lowerTriangle = (n: number): Tensor =>
  constant(
    ndarray(
      Float32Array.from({ length: n * n }, (_, i) => Number(i % n <= Math.floor(i / n))),
      [n, n],
    ),
  );

/**
 * The matrix [..., n, n] whose element (i, j) is `values[..., j - i + n - 1]`: [..., 2n - 1] values, one a diagonal,
 * the lowest first.
 */
export function toeplitz(values: Tensor): Tensor {
  const lead = values.shape.slice(0, -1);
  const n = (values.shape.at(-1)! + 1) / 2;
  const last = values.rank - 1;
  // Rows of length 2n that are read as rows of 2n - 1 move by one each.
  const padded = pad(
    values,
    values.shape.map((_, i) => [0, Number(i === last)]),
  );
  const rows = padded.unsqueeze(last).expand([...lead, n, 2 * n]);
  const skewed = rows.reshape([...lead, 2 * n * n]).slice(last, 0, n * (2 * n - 1));
  return skewed.reshape([...lead, n, 2 * n - 1]).slice(last + 1, n - 1);
}
