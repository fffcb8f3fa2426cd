import { ndarray } from '../array/index.js';
import { concat, constant, split, type Tensor } from '../tensor/index.js';

export interface TileGrid {
  /** Side of a tile of the input. */
  readonly size: number;
  /** From one tile's start to the next one's. */
  readonly stride: number;
}

/** `f` of one image after the other. */
export const eachImage = (x: Tensor, f: (image: Tensor) => Tensor): Tensor =>
  x.shape[0] === 1 ? f(x) : concat(split(x, x.shape[0], 0).map(f), 0);

/** Rows of overlapping tiles of x [N, C, H, W]; those at the right and bottom edge may be smaller. */
export const tilesOf = (x: Tensor, { size, stride }: TileGrid): Tensor[][] =>
  starts(x.shape[2], stride).map((top) => {
    const row = x.slice(2, top, Math.min(top + size, x.shape[2]));
    return starts(x.shape[3], stride).map((left) => row.slice(3, left, Math.min(left + size, x.shape[3])));
  });

const starts = (length: number, stride: number): number[] =>
  Array.from({ length: Math.ceil(length / stride) }, (_, i) => i * stride);

/**
 * Puts overlapping tiles together: each fades in over `blend` rows and columns of its upper and left neighbour, as they
 * came out of their own blending, and the first `limit` rows and columns of it are kept.
 */
export function blendTiles(rows: readonly (readonly Tensor[])[], blend: number, limit: number): Tensor {
  const blended: Tensor[][] = [];
  for (const [i, row] of rows.entries()) {
    blended.push([]);
    for (const [j, tile] of row.entries()) {
      const below = i > 0 ? fadeIn(blended[i - 1][j], tile, 2, blend) : tile;
      blended[i].push(j > 0 ? fadeIn(blended[i][j - 1], below, 3, blend) : below);
    }
  }
  const kept = (tile: Tensor, axis: number) => tile.slice(axis, 0, Math.min(limit, tile.shape[axis]));
  return concat(
    blended.map((row) =>
      concat(
        row.map((tile) => kept(kept(tile, 2), 3)),
        3,
      ),
    ),
    2,
  );
}

/** `tile`, whose first elements along an axis are mixed with the last of `before`, less and less of them. */
function fadeIn(before: Tensor, tile: Tensor, axis: 2 | 3, blend: number): Tensor {
  const [end, length] = [before.shape[axis], tile.shape[axis]];
  const extent = Math.min(end, length, blend);
  if (extent <= 0) return tile;
  const weights = Float32Array.from({ length: extent }, (_, k) => k / extent);
  const ramp = constant(ndarray(weights, axis === 2 ? [extent, 1] : [extent]));
  const old = before.slice(axis, end - extent, end).mul(ramp.neg().add(1));
  const mixed = old.add(tile.slice(axis, 0, extent).mul(ramp));
  return extent === length ? mixed : concat([mixed, tile.slice(axis, extent, length)], axis);
}
