import { ndarray } from '../../array/index.js';
import { apply, type Op } from '../op.js';
import type { Rule } from '../rewrite.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, unblocked } from './blocked.js';
import type { Pair, WeightGradientAttrs } from './conv.js';
import { gather } from './indexing.js';
import { constant } from './leaves.js';

/**
 * The gradient of a convolution's kernel as a blocked convolution: bands of rows of all samples are its channels, the
 * output's gradient is its kernel, and the image's channels lie beside one another in a row, pixel after pixel, so that a
 * step of one tap is a step of a pixel and the result is wide enough for the engine's tiles.
 */
export function blockedWeightGradient(layout: BlockedLayout): Rule {
  const { block } = layout;
  const arrangements = new Map<string, Tensor>();
  /** Rows of a matrix in the order of `shape`, which `index` maps to their places; once for all that share `key`. */
  const arranged = (
    matrix: Tensor,
    shape: readonly number[],
    key: string,
    index: (at: readonly number[]) => number,
  ): Tensor => {
    const known = arrangements.get(`${key} ${matrix.shape} ${shape}`);
    if (known) return gather(matrix, known);
    const indices = new Int32Array(shape.reduce((a, b) => a * b));
    const at = shape.map(() => 0);
    for (let k = 0; k < indices.length; k++) {
      indices[k] = index(at);
      for (let i = shape.length - 1; i >= 0 && ++at[i] === shape[i]; i--) at[i] = 0;
    }
    const arrangement = constant(ndarray(indices, shape, 'int32'));
    arrangements.set(`${key} ${matrix.shape} ${shape}`, arrangement);
    return gather(matrix, arrangement);
  };

  return ([x, g], attrs, { shape }) => {
    const { kernel, stride, pads, dilation, groups } = attrs as WeightGradientAttrs;
    const [taps, [n, c], [, o, height, width]] = [kernel[0] * kernel[1], x.shape, g.shape];
    const bands = bandsOf(n, height, width, block);
    const rows = Math.ceil(height / bands);
    if (groups !== 1 || o % block || taps === 1 || dilation[1] !== 1 || x.dtype !== 'float32') return undefined;
    if (rows * bands > 1.25 * height) return undefined;

    const gradient = layout.blocked(g).reshape([n, o / block, height, width * block]);
    const filters = window(gradient, [0, 0], [rows * bands, width * block]).reshape([-1, block]);
    const filterShape = [o / block, (n * bands) / block, rows, width, block];
    const filter = arranged(filters, filterShape, `filter ${n}`, ([out, i, row, column, j]) => {
      const [band, sample] = divided(i * block + j, n);
      return ((sample * (o / block) + out) * rows * bands + band * rows + row) * width + column;
    }).reshape([o, n * bands, rows, width]);

    const deep = layout.fits(x) ? block : c;
    const pixels = layout.fits(x) ? layout.blocked(x) : x.transpose([0, 2, 3, 1]);
    const reach = (i: 0 | 1, size: number) => (size - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1;
    const [tall, high, wide] = [reach(0, rows * bands), reach(0, rows), reach(1, width) * deep];
    const from = [-pads[0][0], -pads[1][0] * deep] as const;
    const images = window(pixels.reshape([n, c / deep, x.shape[2], x.shape[3] * deep]), from, [tall, wide]);
    const imageShape = [c / deep, n * bands, high];
    const image = arranged(
      images.reshape([-1, wide]),
      imageShape,
      `image ${n} ${rows} ${stride[0]}`,
      ([channels, i, row]) => {
        const [band, sample] = divided(i, n);
        return (sample * (c / deep) + channels) * tall + band * rows * stride[0] + row;
      },
    );

    const sums = blockedConv(layout.blocked(image), filter, {
      stride: [dilation[0], 1],
      pads: noPads,
      dilation: [stride[0], stride[1] * deep],
      groups,
    });
    // A matrix for each image, then short runs: faster than all at once.
    const channelsFirst = unblocked(sums)
      .reshape([c / deep, o * taps, deep])
      .transpose([0, 2, 1]);
    return channelsFirst.reshape([c, o, taps]).transpose([1, 0, 2]).reshape(shape);
  };
}

/** So many bands that they fill up blocks with the samples and a core's second cache holds the filters of one block. */
function bandsOf(samples: number, height: number, width: number, block: number): number {
  const least = block / gcd(samples, block);
  const rows = Math.max(1, Math.floor(CACHE_BYTES / (FILTER_BYTES * block ** 2 * width)));
  return least * Math.ceil(height / (rows * least));
}
const CACHE_BYTES = 2 ** 20;
/** Four filters are taken at once. */
const FILTER_BYTES = 4 * Float32Array.BYTES_PER_ELEMENT;

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
const divided = (a: number, b: number): Pair => [Math.floor(a / b), a % b];
const noPads: readonly [Pair, Pair] = [
  [0, 0],
  [0, 0],
];

type WindowAttrs = { from: Pair; size: Pair };
const windowOp: Op<WindowAttrs> = {
  name: 'window',
  infer: ([x], { size }) => ({ shape: [...x.shape.slice(0, 2), ...size], dtype: x.dtype }),
  // Negative padding cuts off.
  emit(e, { inputs: [x] }, { from, size }) {
    const after = size.map((length, i) => from[i] + length - x.shape[2 + i]);
    const pads = [0, 0, -from[0], -from[1], 0, 0, ...after];
    return e.node('Pad', [e.name(x), e.constant(ndarray(pads, [8], 'int64'))]);
  },
};
/** A part of the last two axes, zero where it reaches beyond them. */
const window = (x: Tensor, from: Pair, size: Pair): Tensor =>
  [0, 1].every((i) => from[i] === 0 && size[i] === x.shape[2 + i]) ? x : apply(windowOp, [x], { from, size });
