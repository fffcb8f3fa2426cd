import type { Raster } from './raster.js';

/** The filters of Pillow's resize: how far they reach, and their weight at a distance. */
const filters = {
  box: [0.5, (x: number) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x: number) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x: number) => cubic(Math.abs(x))],
  lanczos: [3, (x: number) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
} as const;
export type ResampleFilter = keyof typeof filters;

const cubic = (x: number): number =>
  x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Pillow's weights are whole numbers of this unit. */
const unit = 2 ** 22;

interface Taps {
  readonly first: number;
  readonly weights: readonly number[];
}

/** For each output pixel the input pixels it is made of; the filter is as wide as the larger of both kinds. */
function tapsOf(filter: ResampleFilter, from: number, to: number): Taps[] {
  const [support, weight] = filters[filter];
  const scale = from / to;
  const stretch = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const end = Math.min(from, Math.trunc(centre + support * stretch + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) => weight((first + k - centre + 0.5) / stretch));
    const total = raw.reduce((a, b) => a + b, 0);
    return { first, weights: raw.map((w) => Math.trunc((w / total) * unit + (w < 0 ? -0.5 : 0.5))) };
  });
}

/** Scales along one axis; `place` says which pixel of the picture is the n-th of a line. */
function scaleAxis(
  source: Uint8Array,
  taps: readonly Taps[],
  lines: number,
  place: (line: number, pixel: number) => number,
  out: Uint8Array,
  outPlace: (line: number, pixel: number) => number,
  channels: number,
): void {
  for (let line = 0; line < lines; line++)
    for (const [i, { first, weights }] of taps.entries())
      for (let c = 0; c < channels; c++) {
        let sum = unit / 2;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * source[place(line, first + k) * channels + c];
        out[outPlace(line, i) * channels + c] = Math.min(255, Math.max(0, Math.floor(sum / unit)));
      }
}

/**
 * A picture scaled smoothly to another size, byte for byte as Pillow does it (rows first, rounded, then columns).
 * @throws RangeError for a size that is not positive.
 */
export function resizeRaster(
  raster: Raster,
  [height, width]: readonly [number, number],
  filter: ResampleFilter,
): Raster {
  if (!(height >= 1 && width >= 1)) throw new RangeError(`resizeRaster: ${height}x${width}, expected at least 1x1`);
  const { channels } = raster;
  let { data } = raster;
  if (width !== raster.width) {
    const wide = new Uint8Array(raster.height * width * channels);
    const taps = tapsOf(filter, raster.width, width);
    const at = (size: number) => (row: number, x: number) => row * size + x;
    scaleAxis(data, taps, raster.height, at(raster.width), wide, at(width), channels);
    data = wide;
  }
  if (height !== raster.height) {
    const tall = new Uint8Array(height * width * channels);
    const at = (column: number, y: number) => y * width + column;
    scaleAxis(data, tapsOf(filter, raster.height, height), width, at, tall, at, channels);
    data = tall;
  }
  return { width, height, channels, data };
}
