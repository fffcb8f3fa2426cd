import { ndarray } from '../array/index.js';
import { constant, type Tensor } from '../tensor/index.js';

/** A linear map of a row of pixels: one list of weights per output pixel. */
export type Taps = readonly (readonly number[])[];

/** Applies a map to the rows and one to the columns of images [N, C, H, W]. */
export function separable(x: Tensor, vertical: Taps, horizontal: Taps): Tensor {
  const matrix = (taps: Taps) => constant(ndarray(taps.flat(), [taps.length, taps[0].length]));
  return matrix(vertical).matmul(x.matmul(matrix(horizontal).transpose()));
}

/** `a` after `b`. */
export const after = (a: Taps, b: Taps): Taps =>
  a.map((row) => b[0].map((_, j) => row.reduce((sum, weight, k) => sum + weight * b[k][j], 0)));

/** Convolution of `n` pixels with an odd, symmetric kernel; the border reflects, its pixel not repeated. */
export function blurred(n: number, kernel: readonly number[]): Taps {
  const half = kernel.length >> 1;
  const period = Math.max(1, 2 * n - 2);
  const reflected = (i: number) => {
    const j = Math.abs(i) % period;
    return j < n ? j : period - j;
  };
  return Array.from({ length: n }, (_, i) => {
    const row = new Array<number>(n).fill(0);
    for (const [k, weight] of kernel.entries()) row[reflected(i + k - half)] += weight;
    return row;
  });
}

/** Bilinear interpolation of `from` pixels to `to`, corners not aligned (torch's default). */
export function interpolated(from: number, to: number): Taps {
  return Array.from({ length: to }, (_, i) => {
    const at = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const low = Math.min(Math.floor(at), from - 1);
    const row = new Array<number>(from).fill(0);
    row[low] += 1 - (at - low);
    row[Math.min(low + 1, from - 1)] += at - low;
    return row;
  });
}
