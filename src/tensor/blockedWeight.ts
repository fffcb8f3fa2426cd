import { ndarray, type Shape } from '../array/index.js';
import { eachBand, PreparedWeight, preparedWeight } from './preparedWeight.js';
import type { Variable } from './variable.js';

/** A frozen kernel as `blockedKernel` lays it out, made on the host, where it takes less time than in the engine. */
export const blockedWeight = (w: Variable, block: number): PreparedWeight =>
  preparedWeight(w, `blocks of ${block}`, () => inBlocks(w, w.shape, block, (rows) => rows));

/**
 * What a frozen kernel [O, I, 3, 3] is to pixels before they are doubled, in blocks: [O, I, 2, 2]. Of an even row the
 * last two taps see the same pixel, of an odd one the first two; columns alike.
 */
export function mergedWeight(w: Variable, block: number, odd: readonly [row: number, column: number]): PreparedWeight {
  const [o, c] = w.shape;
  const target = (tap: number, isOdd: number) => (isOdd ? tap >> 1 : (tap + 1) >> 1);
  const places = Array.from({ length: 9 }, (_, i) => 2 * target(Math.floor(i / 3), odd[0]) + target(i % 3, odd[1]));
  const merged = (rows: Float32Array): Float32Array => {
    const sums = new Float32Array((rows.length / 9) * 4);
    for (let from = 0, to = 0; from < rows.length; from += 9, to += 4)
      for (let tap = 0; tap < 9; tap++) sums[to + places[tap]] += rows[from + tap];
    return sums;
  };
  return preparedWeight(w, `blocks of ${block}, merged ${odd}`, () => inBlocks(w, [o, c, 2, 2], block, merged));
}

/** @param change what is done to rows before. */
function inBlocks(
  w: Variable,
  shape: Shape,
  block: number,
  change: (rows: Float32Array) => Float32Array,
): PreparedWeight {
  const [o, c, kh = 1, kw = 1] = shape;
  const width = c * kh * kw;
  const blocks = aligned(o * width);
  eachBand(w, block, (band, first) => putBlocks(change(band), blocks.subarray(first * width), width, kh * kw, block));
  return new PreparedWeight(ndarray(blocks, shape), w);
}

/** A buffer that may grow begins at a page: kernels across cache lines would make convolutions 1.4 times as long. */
function aligned(length: number): Float32Array<ArrayBuffer> {
  const bytes = length * Float32Array.BYTES_PER_ELEMENT;
  return new Float32Array(new ArrayBuffer(bytes, { maxByteLength: bytes }), 0, length);
}

/**
 * Rows of a kernel [O, I, kH, kW] as [O / block, I / block, kH kW, block of I, block of O]; of fewer input channels than
 * a block, as [O / block, I, kH kW, block of O].
 */
function putBlocks(rows: Float32Array, blocks: Float32Array, width: number, taps: number, block: number): void {
  const inner = width < block * taps ? taps : block * taps;
  const height = block * width;
  let to = 0;
  for (let top = 0; top < rows.length; top += height)
    for (let first = top; first < top + width; first += inner)
      for (let tap = first; tap < first + taps; tap++)
        for (let channel = tap; channel < tap + inner; channel += taps)
          for (let from = channel; from < channel + height; from += width) blocks[to++] = rows[from];
}
