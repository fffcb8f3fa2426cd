import type { Raster } from '../io/index.js';

export interface EdgeOptions {
  /** Slopes above it are edges (of Sobel's filter, on 0..255 levels); default 200. */
  readonly high?: number;
  /** Slopes above it are edges where they touch one; default 100. */
  readonly low?: number;
}

/**
 * The edges of a picture, white on black, one pixel wide (Canny 1986, without the blur): the slope of the brightest colour
 * by Sobel's filters, thinned to its ridges, followed from strong to weak ones.
 * @returns a picture of the same size, RGB, 0 or 255.
 */
export function edgeMap(
  { width, height, channels, data }: Raster,
  { high = 200, low = 100 }: EdgeOptions = {},
): Raster {
  const at = (x: number, y: number, c: number): number =>
    data[(clamp(y, height) * width + clamp(x, width)) * channels + c];
  const [slope, dx, dy] = [0, 1, 2].map(() => new Float32Array(width * height));
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++) {
        const across = (row: number) => at(x + 1, row, c) - at(x - 1, row, c);
        const down = (column: number) => at(column, y + 1, c) - at(column, y - 1, c);
        const gx = across(y - 1) + 2 * across(y) + across(y + 1);
        const gy = down(x - 1) + 2 * down(x) + down(x + 1);
        const i = y * width + x;
        const size = Math.abs(gx) + Math.abs(gy);
        if (size > slope[i]) [slope[i], dx[i], dy[i]] = [size, gx, gy];
      }
  const slopeAt = (x: number, y: number): number =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : slope[y * width + x];
  /** The neighbour in the direction of the slope, of eight. */
  const isRidge = (x: number, y: number): boolean => {
    const i = y * width + x;
    const angle = Math.atan2(dy[i], dx[i]);
    const [sx, sy] = [Math.round(Math.cos(angle)), Math.round(Math.sin(angle))];
    return slope[i] > slopeAt(x - sx, y - sy) && slope[i] >= slopeAt(x + sx, y + sy);
  };
  const out = new Uint8Array(width * height * 3);
  const found: number[] = [];
  const mark = (x: number, y: number, least: number): void => {
    const i = y * width + x;
    if (out[3 * i] !== 0 || slopeAt(x, y) <= least || !isRidge(x, y)) return;
    out.fill(255, 3 * i, 3 * i + 3);
    found.push(i);
  };
  for (let i = 0; i < width * height; i++) mark(i % width, Math.floor(i / width), high);
  for (let i = found.pop(); i !== undefined; i = found.pop())
    for (const step of [-1, 0, 1])
      for (const side of [-1, 0, 1]) {
        const [x, y] = [(i % width) + side, Math.floor(i / width) + step];
        if (x >= 0 && y >= 0 && x < width && y < height) mark(x, y, low);
      }
  return { width, height, channels: 3, data: out };
}

const clamp = (i: number, length: number): number => Math.min(length - 1, Math.max(0, i));
