import { type NdArray, zeros } from '../array/index.js';

export interface SinCosOptions {
  /** Positions are scaled so that a grid of this size has steps of 1; default 16. */
  readonly baseSize?: number;
  readonly interpolationScale?: number;
  /** Rows of zeros in front (for class tokens); default 0. */
  readonly extraTokens?: number;
}

/**
 * Sinusoidal positions of a grid, row by row: [extraTokens + height * width, dim]. The first half of each row
 * encodes the column, the second the row of the grid, each as sines and then cosines.
 * Follows `get_2d_sincos_pos_embed` of MAE, DiT and diffusers.
 * @throws RangeError when dim is not a multiple of 4.
 */
export function sinCos2d(
  dim: number,
  [height, width]: readonly [number, number],
  { baseSize = 16, interpolationScale = 1, extraTokens = 0 }: SinCosOptions = {},
): NdArray<'float32'> {
  if (dim % 4) throw new RangeError(`sinCos2d: dimension ${dim}, expected a multiple of 4`);
  const quarter = dim / 4;
  const out = zeros([extraTokens + height * width, dim]);
  // PyTorch holds positions in single precision, angles in double.
  const position = (i: number, size: number) =>
    Math.fround(Math.fround(i / Math.fround(size / baseSize)) / Math.fround(interpolationScale));
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      [position(column, width), position(row, height)].forEach((p, half) => {
        const at = (extraTokens + row * width + column) * dim + half * 2 * quarter;
        for (let i = 0; i < quarter; i++) {
          const angle = p / 10000 ** (i / quarter);
          out.data[at + i] = Math.sin(angle);
          out.data[at + quarter + i] = Math.cos(angle);
        }
      });
  return out;
}
