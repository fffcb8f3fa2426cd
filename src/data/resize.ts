import type { Dataset } from './dataset.js';

interface Taps {
  readonly first: number;
  readonly weights: Float32Array;
}

/** For each output pixel the input pixels it averages: a triangle as wide as the output pixel, as Pillow's BILINEAR. */
function triangleTaps(from: number, to: number): Taps[] {
  const scale = from / to;
  const reach = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach + 0.5));
    const end = Math.min(from, Math.floor(centre + reach + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs(first + k + 0.5 - centre) / reach),
    );
    const total = raw.reduce((a, b) => a + b);
    return { first, weights: Float32Array.from(raw, (w) => w / total) };
  });
}

/** Scales one line of pixels; `step` is the distance from one to the next. */
function scaleLine(
  source: Float32Array,
  from: number,
  fromStep: number,
  taps: Taps[],
  out: Float32Array,
  to: number,
  toStep: number,
) {
  for (const [i, { first, weights }] of taps.entries()) {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k] * source[from + (first + k) * fromStep];
    out[to + i * toStep] = sum;
  }
}

/** The data set with every picture brought to size x size: the middle square, smoothly scaled. */
export function resized(dataset: Dataset, size: number): Dataset {
  if (!Number.isInteger(size) || size < 1) throw new RangeError(`resized: size ${size}, expected 1, 2 ...`);
  const [channels, height, width] = dataset.shape;
  if (height === size && width === size) return dataset;
  const side = Math.min(height, width);
  const top = (height - side) >> 1;
  const left = (width - side) >> 1;
  const taps = triangleTaps(side, size);

  const scale = (source: Float32Array, out: Float32Array, offset: number): void => {
    const tall = new Float32Array(size * side); // [size, side]: the columns scaled, then the rows
    for (let c = 0; c < channels; c++) {
      const corner = (c * height + top) * width + left;
      for (let x = 0; x < side; x++) scaleLine(source, corner + x, width, taps, tall, x, side);
      for (let y = 0; y < size; y++) scaleLine(tall, y * side, 1, taps, out, offset + (c * size + y) * size, 1);
    }
  };
  const { name, length, classNames } = dataset;
  return {
    name,
    length,
    classNames,
    shape: [channels, size, size],
    label: (i) => dataset.label(i),
    fill(i, out, offset) {
      const source = new Float32Array(channels * height * width);
      const filled = dataset.fill(i, source, 0);
      return filled ? filled.then(() => scale(source, out, offset)) : scale(source, out, offset);
    },
  };
}
