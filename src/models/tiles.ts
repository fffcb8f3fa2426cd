import { type NdArray, ndarray, type Shape, zeros } from '../array/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';

type Image = NdArray<'float32'>;

/** How large images and latents are cut into tiles; the result differs a little from the whole's. */
export interface Tiling {
  /** Side of an image's tile; default: `sampleSize` of AutoencoderKL, 512 for AutoencoderTiny. */
  readonly tileSampleMinSize?: number;
  /** Side of a latent's tile; default: that of an image's, divided by how much smaller latents are. */
  readonly tileLatentMinSize?: number;
  /** Part of a tile that its neighbour overlaps; default 0.25, for AutoencoderTiny 0.125. */
  readonly tileOverlapFactor?: number;
}

/** Overlapping tiles, and how what became of them is put together. */
export interface Tiles {
  /** Side of a tile. */
  readonly size: number;
  /** From one tile's start to the next one's. */
  readonly stride: number;
  /** Images with no side longer than this are not cut. */
  readonly whole: number;
  /**
   * @param rows of tiles, as they came out; they may be overwritten.
   * @param shape of what was cut.
   */
  join(rows: readonly (readonly Image[])[], shape: Shape): Image;
}

export interface Pieces {
  readonly tiles?: Tiles;
  /** One image after the other. */
  readonly slicing?: boolean;
}

/**
 * Applies `f` to images or latents x [N, C, H, W] piece by piece, in the memory of one piece. Tiles at the right and
 * bottom edge may be smaller; those of one shape share a session, which is gone before the next one is made.
 */
export async function piecewise(
  x: Image,
  f: (piece: Tensor) => Tensor,
  { tiles, slicing = false }: Pieces,
  options?: CompileOptions,
): Promise<Image> {
  const images = slicing ? Array.from({ length: x.shape[0] }, (_, i) => imageOf(x, i)) : [x];
  const grids = images.map((image) => cut(image, tiles));
  const results = await eachOf(grids.flat(2), f, options);
  const joined = grids.map((rows, i) =>
    rows[0][0] === images[i]
      ? results.get(images[i])!
      : tiles!.join(
          rows.map((row) => row.map((tile) => results.get(tile)!)),
          images[i].shape,
        ),
  );
  return slicing ? stacked(joined) : joined[0];
}

/** What `f` makes of each piece. */
async function eachOf(
  pieces: readonly Image[],
  f: (piece: Tensor) => Tensor,
  options?: CompileOptions,
): Promise<Map<Image, Image>> {
  const results = new Map<Image, Image>();
  for (const shape of new Set(pieces.map((piece) => `${piece.shape}`))) {
    const run = compile(f, { freeze: true, ...options });
    try {
      for (const piece of pieces) if (`${piece.shape}` === shape) results.set(piece, (await run(piece)) as Image);
    } finally {
      await run.release();
    }
  }
  return results;
}

/** Rows of tiles; those at the right and bottom edge may be smaller. */
function cut(x: Image, tiles?: Tiles): Image[][] {
  const [, , height, width] = x.shape;
  if (!tiles || Math.max(height, width) <= tiles.whole) return [[x]];
  const { size, stride } = tiles;
  const starts = (length: number) => Array.from({ length: Math.ceil(length / stride) }, (_, i) => i * stride);
  return starts(height).map((top) => {
    const rows = Math.min(size, height - top);
    return starts(width).map((left) => crop(x, top, left, rows, Math.min(size, width - left)));
  });
}

const imageOf = ({ shape, data }: Image, i: number): Image => {
  const size = data.length / shape[0];
  return ndarray(data.subarray(i * size, (i + 1) * size), [1, ...shape.slice(1)]);
};

const stacked = (images: readonly Image[]): Image => {
  const [{ shape, data }] = images;
  const all = zeros([images.length, ...shape.slice(1)]);
  for (const [i, image] of images.entries()) all.data.set(image.data, i * data.length);
  return all;
};

function crop(x: Image, top: number, left: number, rows: number, columns: number): Image {
  const tile = zeros([x.shape[0], x.shape[1], rows, columns]);
  eachRow(tile, top, left, x, (at, from) => tile.data.set(x.data.subarray(from, from + columns), at));
  return tile;
}

/** Visits the rows of a tile: where they begin in its data, and at (top, left) of the whole's. */
export function eachRow(
  { shape: [n, channels, rows, columns] }: Image,
  top: number,
  left: number,
  { shape: [, , height, width] }: Image,
  visit: (at: number, inWhole: number, row: number) => void,
): void {
  for (let plane = 0; plane < n * channels; plane++)
    for (let row = 0; row < rows; row++)
      visit((plane * rows + row) * columns, (plane * height + top + row) * width + left, row);
}

/**
 * Puts overlapping tiles together as AutoencoderKL of diffusers does: each fades in over `blend` rows and columns of its
 * upper and left neighbour, as they came out of their own blending, and the first `limit` rows and columns are kept.
 */
export function blendTiles(rows: readonly (readonly Image[])[], blend: number, limit: number): Image {
  for (const [i, row] of rows.entries())
    for (const [j, tile] of row.entries()) {
      if (i > 0) fadeIn(rows[i - 1][j], tile, 2, blend);
      if (j > 0) fadeIn(row[j - 1], tile, 3, blend);
    }
  const kept = (tiles: readonly Image[], axis: 2 | 3) =>
    tiles.reduce((sum, { shape }) => sum + Math.min(limit, shape[axis]), 0);
  const [n, channels] = rows[0][0].shape;
  const first = rows.map(([tile]) => tile);
  const whole = zeros([n, channels, kept(first, 2), kept(rows[0], 3)]);
  for (const [i, row] of rows.entries())
    for (const [j, tile] of row.entries()) {
      const columns = Math.min(limit, tile.shape[3]);
      eachRow(tile, kept(first.slice(0, i), 2), kept(row.slice(0, j), 3), whole, (at, to, y) => {
        if (y < limit) whole.data.set(tile.data.subarray(at, at + columns), to);
      });
    }
  return whole;
}

/** Mixes the first elements of `tile` along an axis with the last of `before`, less and less of them. */
function fadeIn(before: Image, tile: Image, axis: 2 | 3, blend: number): void {
  const extent = Math.min(before.shape[axis], tile.shape[axis], blend);
  const [above, to] = [before.data, tile.data];
  const [height, width] = tile.shape.slice(2);
  const [rows, columns] = axis === 2 ? [extent, width] : [height, extent];
  const [top, left] = axis === 2 ? [before.shape[2] - extent, 0] : [0, before.shape[3] - extent];
  eachRow(tile, top, left, before, (at, from, y) => {
    if (y >= rows) return;
    for (let x = 0; x < columns; x++) {
      const weight = (axis === 2 ? y : x) / extent;
      to[at + x] = above[from + x] * (1 - weight) + to[at + x] * weight;
    }
  });
}
