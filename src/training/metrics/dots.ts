/** Numbers in rows of `width`. */
export interface Matrix {
  readonly data: Float32Array | Float64Array;
  readonly rows: number;
  readonly width: number;
}

/** Dot products of rows i..i+rows-1 of one matrix with rows j..j+columns-1 of another; `dots` has rows of `tileSide`. */
export interface Tile {
  readonly i: number;
  readonly j: number;
  readonly rows: number;
  readonly columns: number;
  readonly dots: Float64Array;
}

export const tileSide = 64;

/** Groups of rows as float64, the rows of a group interleaved, so that the inner loop reads on and on. */
const groups = (size: number, width: number): Float64Array[] =>
  Array.from({ length: tileSide / size }, () => new Float64Array(size * width));

/** Packs a tile's worth of rows; those past the last stay as they were, and their sums are not looked at. */
function pack({ data, rows, width }: Matrix, begin: number, size: number, out: readonly Float64Array[]): void {
  for (let row = 0; row < Math.min(tileSide, rows - begin); row++) {
    const group = out[Math.floor(row / size)];
    const from = (begin + row) * width;
    for (let k = 0, to = row % size; k < width; k++, to += size) group[to] = data[from + k];
  }
}

/** Four rows with two: as many sums as stay in registers. */
function fourByTwo(x: Float64Array, y: Float64Array, dots: Float64Array, at: number): void {
  let [s00, s01, s10, s11, s20, s21, s30, s31] = [0, 0, 0, 0, 0, 0, 0, 0];
  for (let p = 0, q = 0; q < y.length; p += 4, q += 2) {
    const y0 = y[q];
    const y1 = y[q + 1];
    s00 += x[p] * y0;
    s01 += x[p] * y1;
    s10 += x[p + 1] * y0;
    s11 += x[p + 1] * y1;
    s20 += x[p + 2] * y0;
    s21 += x[p + 2] * y1;
    s30 += x[p + 3] * y0;
    s31 += x[p + 3] * y1;
  }
  dots[at] = s00;
  dots[at + 1] = s01;
  dots[at + tileSide] = s10;
  dots[at + tileSide + 1] = s11;
  dots[at + 2 * tileSide] = s20;
  dots[at + 2 * tileSide + 1] = s21;
  dots[at + 3 * tileSide] = s30;
  dots[at + 3 * tileSide + 1] = s31;
}

/**
 * The dot products of every row of `a` with every row of `b`, tile by tile, in float64. The tile is used again: copy
 * what is to be kept. When `a` is `b`, tiles below the diagonal are left out.
 */
export function* dotTiles(a: Matrix, b: Matrix): IterableIterator<Tile> {
  if (a.width !== b.width) throw new RangeError(`dot products: rows of ${a.width} numbers with rows of ${b.width}`);
  const { width } = a;
  const dots = new Float64Array(tileSide * tileSide);
  const [x, y] = [groups(4, width), groups(2, width)];
  for (let i = 0; i < a.rows; i += tileSide) {
    pack(a, i, 4, x);
    for (let j = a === b ? i : 0; j < b.rows; j += tileSide) {
      pack(b, j, 2, y);
      const tile = { i, j, rows: Math.min(tileSide, a.rows - i), columns: Math.min(tileSide, b.rows - j), dots };
      for (let row = 0; row < tile.rows; row += 4)
        for (let column = 0; column < tile.columns; column += 2)
          fourByTwo(x[row / 4], y[column / 2], dots, row * tileSide + column);
      yield tile;
    }
  }
}

/** All dot products at once, [a.rows, b.rows]: `a` times the transpose of `b`. */
export function dots(a: Matrix, b: Matrix): Matrix {
  const data = new Float64Array(a.rows * b.rows);
  for (const tile of dotTiles(a, b))
    for (let i = 0; i < tile.rows; i++)
      for (let j = 0; j < tile.columns; j++) {
        const dot = tile.dots[i * tileSide + j];
        data[(tile.i + i) * b.rows + tile.j + j] = dot;
        if (a === b) data[(tile.j + j) * b.rows + tile.i + i] = dot;
      }
  return { data, rows: a.rows, width: b.rows };
}
