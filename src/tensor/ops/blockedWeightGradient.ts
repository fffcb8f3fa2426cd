import { ndarray, sizeOf } from '../../array/index.js';
import { once } from '../once.js';
import type { Rule } from '../rewrite.js';
import { sameShape } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, everyPixel, isUnblocked, reordered, unblocked } from './blocked.js';
import { farPads, type Pair, turnedTaps, type WeightGradientAttrs } from './conv.js';
import { gather } from './indexing.js';
import { constant } from './leaves.js';
import { sumTo } from './reduce.js';
import { rowIndices } from './rowMoves.js';
import { concat } from './shape.js';

/**
 * The gradient of a convolution's kernel as a blocked convolution: bands of rows of all samples are its channels, the
 * output's gradient is its kernel, and the image's channels lie beside one another in a row, pixel after pixel, so that a
 * step of one tap is a step of a pixel and the result is wide enough for the engine's tiles. Where the output has fewer
 * channels, image and gradient change places, for the one that is not the kernel needs edges.
 */
export function blockedWeightGradient(layout: BlockedLayout): Rule {
  const { block } = layout;
  const arrangements = new Map<string, Arrangement>();
  /** Rows of a matrix, or of zeros, in the order of `shape`; `key` names what `index` depends on beside the two shapes. */
  const arranged = (matrix: Tensor, shape: readonly number[], key: string, index: Index): Tensor => {
    const [rows, length] = matrix.shape;
    const arrangement = once(arrangements, `${key} ${rows} ${shape}`, () => arrangementOf(shape, rows, index));
    const zeros = layout.filled(length, 0).reshape([1, length]);
    return gather(arrangement.hasZeros ? concat([matrix, zeros]) : matrix, arrangement.indices);
  };

  /** @param turned x and g have changed places: the taps come out in reverse. */
  const gradient = (x: Tensor, g: Tensor, attrs: WeightGradientAttrs, turned: boolean): Tensor | undefined => {
    const { kernel, stride, pads, dilation, groups } = attrs;
    const [taps, [n, c, tall, wide], [, o, height, width]] = [kernel[0] * kernel[1], x.shape, g.shape];
    const bands = bandsOf(n, height, width, block);
    const rows = Math.ceil(height / bands);
    if (groups !== 1 || o % block || dilation[1] !== 1 || x.dtype !== 'float32') return undefined;
    if (rows * bands > 1.25 * height || (taps === 1 && !(isUnblocked(x) && isUnblocked(g)))) return undefined;
    const everyPosition = String(stride) === '1,1' && sameShape(x.shape.slice(2), [height, width]);
    if (taps === 1 && everyPosition && (n < block || n % block === 0))
      return ofOnePixel(x.inputs[0], g.inputs[0], block);
    const summed = n * bands;
    const bandAndSample = (i: number): Pair => [Math.floor(i / n), i % n];

    const deep = layout.fits(x) ? block : c;
    const shares = sharesOf((c / deep) * Math.ceil(o / (FILTERS * block)) * kernel[0], summed / block);
    const share = summed / shares;
    const filterShape = [shares, o / block, share / block, rows, width, block];
    const filter = arranged(layout.blocked(g).reshape([-1, block]), filterShape, `g ${n} ${height}`, (at) => {
      const [band, sample] = bandAndSample(at[0] * share + at[2] * block + at[5]);
      const row = band * rows + at[3];
      return row < height ? ((sample * (o / block) + at[1]) * height + row) * width + at[4] : undefined;
    }).reshape([shares * o, share, rows, width]);

    // Samples that fill blocks are brought there first, so that whole pixels of a block are moved.
    const together = layout.fits(x) && n % block === 0 ? block : 1;
    const blocks = layout.fits(x) ? layout.blocked(x) : x.transpose([0, 2, 3, 1]);
    const pixels = together > 1 ? reordered(blocks.reshape([1, n, (c / deep) * tall, wide * deep])) : blocks;
    const reach = (i: 0 | 1, size: number) => (size - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1;
    const size: Pair = [reach(0, rows), reach(1, width)];
    const imageShape = [c / deep, summed / together, ...size];
    const key = `x ${[n, tall, wide, rows]} ${stride} ${pads}`;
    const moved = arranged(pixels.reshape([-1, deep * together]), imageShape, key, (at) => {
      const [band, sample] = bandAndSample(at[1] * together);
      const [row, column] = [band * rows * stride[0] + at[2] - pads[0][0], at[3] - pads[1][0]];
      const inside = row >= 0 && row < tall && column >= 0 && column < wide;
      return inside ? (((sample / together) * (c / deep) + at[0]) * tall + row) * wide + column : undefined;
    }).reshape([c / deep, summed, size[0], size[1] * deep]);
    const image = together > 1 ? moved : layout.blocked(moved);

    const ofShares = blockedConv(image, filter, {
      stride: [dilation[0], 1],
      pads: everyPixel.pads,
      dilation: [stride[0], stride[1] * deep],
      groups: shares,
    });
    const length = o * taps * deep;
    const sums = sumTo(ofShares.reshape([c / deep, shares, length]), [c / deep, 1, length]);
    const taken = sums.reshape([c / deep, o / block, taps, deep, block]);
    if (!turned) return unblocked(taken.transpose([1, 0, 3, 2, 4]).reshape([1, o, c * taps, 1]));
    const inReverse = gather(taken, turnedTaps(taps), 2);
    return unblocked(inReverse.transpose([0, 3, 1, 2, 4]).reshape([c, o, taps, 1]));
  };

  return ([x, g], attrs, { shape }) => {
    const conv = attrs as WeightGradientAttrs;
    const everyPosition = String(conv.stride) === '1,1' && sameShape(x.shape.slice(2), g.shape.slice(2));
    const turned = everyPosition && sizeOf(conv.kernel) > 1 && g.shape[1] < x.shape[1];
    const there = turned ? gradient(g, x, { ...conv, pads: farPads(conv, conv.kernel) }, true) : undefined;
    return (there ?? gradient(x, g, conv, false))?.reshape(shape);
  };
}

/**
 * Of a kernel of one pixel, [O, C], from blocked images as they lie: the gradient of each sample is a kernel as tall as it
 * has positions, and blocks of channels stand above one another in the image, a step of the convolution apart.
 */
function ofOnePixel(image: Tensor, g: Tensor, block: number): Tensor {
  const [[n, c, height, width], o] = [image.shape, g.shape[1]];
  const positions = height * width;
  const columns = image.reshape([1, n, (c / block) * positions, block]);
  const perSample = blockedConv(columns, g.reshape([n * o, 1, positions, 1]), {
    ...everyPixel,
    stride: [positions, 1],
    groups: n,
  });
  return unblocked(sumTo(perSample.reshape([n, o, c / block, block]), [1, o, c / block, block]));
}

/** The row of a matrix that belongs at a place; undefined for zeros. */
type Index = (at: readonly number[]) => number | undefined;
interface Arrangement {
  readonly indices: Tensor;
  readonly hasZeros: boolean;
}

/** Zeros are the row behind the last. */
function arrangementOf(shape: readonly number[], rows: number, index: Index): Arrangement {
  const indices = rowIndices(shape, (at) => index(at) ?? rows);
  return { indices: constant(ndarray(indices, shape, 'int32')), hasZeros: indices.includes(rows) };
}

/** So many bands that they fill up blocks with the samples and a core's second cache holds the filters of one block. */
function bandsOf(samples: number, height: number, width: number, block: number): number {
  const least = block / gcd(samples, block);
  const rows = Math.max(1, Math.floor(CACHE_BYTES / (FILTER_BYTES * block ** 2 * width)));
  return least * Math.ceil(height / (rows * least));
}
const CACHE_BYTES = 2 ** 20;
/** Blocks of them that are taken at once. */
const FILTERS = 4;
const FILTER_BYTES = FILTERS * Float32Array.BYTES_PER_ELEMENT;

/** Into how many groups the blocks that are summed over are cut, so that every thread has enough rows of a result to make. */
function sharesOf(rows: number, blocks: number): number {
  for (let shares = 1; shares < blocks; shares++)
    if (blocks % shares === 0 && shares * rows >= MANY_ROWS) return shares;
  return blocks;
}
const MANY_ROWS = 32;

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
