import type { Shape } from '../../array/index.js';
import { BLOCKED_DOMAIN } from '../../runtime/index.js';
import { once } from '../once.js';
import { apply, type Op } from '../op.js';
import type { Rules } from '../rewrite.js';
import { range, sameShape } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, channelMeans, everyPixel, isUnblocked, unblocked } from './blocked.js';
import { blockedKernel } from './blockedConv.js';
import { scalarValue } from './leaves.js';
import { concat } from './shape.js';

/**
 * Products of many rows with a weight, and the gradients of that weight, as blocked convolutions of one pixel: rows are
 * positions of an image and columns its channels. They take 0.8 of the engine's products (docs/performance.md).
 * @param inBlocks a weight [out, in] as convolutions read it.
 * @param isWorth whether a weight gains by it; default: all do.
 * @param frozen no gradients of weights are taken, whose kernels need the positions of all samples together.
 */
export function blockedProducts(
  layout: BlockedLayout,
  inBlocks: (w: Tensor, block: number) => Tensor = blockedKernel,
  isWorth: (w: Tensor) => boolean = () => true,
  frozen = false,
): Rules {
  const { block } = layout;
  const images = new Map<Tensor, Tensor>();
  const transposes = new Map<Tensor, Tensor>();
  const kernels = new Map<Tensor, Map<boolean, Tensor>>();
  const fills = (length: number) => length % block === 0;
  const isWide = (columns: number) => fills(columns) && columns >= FEW_COLUMNS;
  // The engine reorders channels, and rows become channels here, in fours.
  const suits = (x: Tensor, w: Tensor) =>
    x.rank === 2 && w.rank === 2 && x.dtype === 'float32' && x.shape[0] >= MANY_ROWS && x.shape[0] % 4 === 0;

  /** Of heads [N, heads, L, size]: how many share a block, or how many blocks make up one, and how long the runs are. */
  const runsOf = ([n, count, length, size]: Shape) => {
    const run = Math.min(size, block);
    if (size % run || block % run || run < SHORT_RUN) return undefined;
    return { n, blocks: (count * size) / block, heads: block / run, length, parts: size / run, run };
  };

  /** Rows of heads that the engine brings into blocks, those of each sample apart: in half of a Gather's time. */
  const ofSamples = (x: Tensor): boolean => frozen && fills(headsOf(x)?.shape[3] ?? 1);
  const isApart = (x: Tensor): boolean => (isUnblockedRows(x) ? !isTogether(x) : ofSamples(x));

  /** Columns as channels. */
  const image = (x: Tensor): Tensor => {
    if (isUnblockedRows(x)) return x.inputs[0];
    return once(images, x, () => {
      const [rows, columns] = x.shape;
      const width = range(block, 1).findLast((d) => rows % d === 0)!;
      const heads = headsOf(x);
      if (heads && ofSamples(x)) {
        const [n, count, length, size] = heads.shape;
        return apply(blockedRowsOp, [heads.reshape([n * count, 1, length, size])], {}).reshape([n, columns, 1, length]);
      }
      const runs = heads && runsOf(heads.shape);
      if (!runs) return apply(blockedRowsOp, [x.reshape([1, rows / width, width, columns])], {});
      const { n, blocks, heads: together, length, parts, run } = runs;
      const ofHeads = heads.reshape([n, blocks / parts, together, length, parts, run]);
      return ofHeads.transpose([1, 4, 0, 3, 2, 5]).reshape([1, columns, rows / width, width]);
    });
  };
  /** Rows as channels. */
  const transposed = (x: Tensor): Tensor =>
    once(transposes, x, () => layout.blocked(x.reshape([1, x.shape[0], x.shape[1] / block, block])));
  /** A matrix [out, in], or its transpose, as [out / block, in / block, block of in, block of out]. */
  const kernel = (w: Tensor, outFirst: boolean): Tensor => {
    const known = once(kernels, w, () => new Map<boolean, Tensor>());
    return once(known, outFirst, () => {
      const [rows, columns] = w.shape;
      if (outFirst) return inBlocks(w, block).reshape([rows, columns, 1, 1]);
      const blocks = w.reshape([rows / block, block, columns / block, block]);
      return blocks.transpose([2, 0, 1, 3]).reshape([columns, rows, 1, 1]);
    });
  };
  const product = (x: Tensor, w: Tensor, outFirst: boolean, bias?: Tensor): Tensor | undefined => {
    if (!suits(x, w) || !w.shape.every(isWide) || !isWorth(w)) return undefined;
    const y = blockedConv(image(x), kernel(w, outFirst), { ...everyPixel, bias });
    return unblockedRows(y, [x.shape[0], y.shape[1]], block);
  };

  /** Positions of images [N, C, H, W] as tokens [N, L, C], and back: what lies in a block of channels is moved at once. */
  const tokensOfImage = (x: Tensor): Tensor | undefined => {
    const source = x.op.name === 'reshape' ? x.inputs[0] : x;
    const [n, c, length] = x.shape;
    if (!isUnblocked(source) || !sameShape(source.shape.slice(0, 2), [n, c])) return undefined;
    const columns = source.inputs[0].reshape([n, c / block, length * block]).transpose([1, 0, 2]);
    return unblockedRows(columns.reshape([1, c, 1, n * length]), [n, length, c], block);
  };
  const imageOfTokens = (x: Tensor): Tensor => {
    const [n, length, c] = x.shape;
    const columns = x.inputs[0].reshape([c / block, n, length * block]).transpose([1, 0, 2]);
    return unblocked(columns.reshape([n, c, 1, length])).reshape([n, c, length]);
  };

  return {
    reshape([x], attrs) {
      const shape = attrs.shape as readonly number[];
      if (isUnblockedRows(x) && shape.at(-1) === x.shape.at(-1)) return unblockedRows(x.inputs[0], shape, block);
      const image = x.op.name === 'reshape' ? x.inputs[0] : x;
      return isUnblocked(image) && shape.length === 4 && sameShape(shape.slice(0, 2), image.shape.slice(0, 2))
        ? unblocked(image.inputs[0].reshape(shape))
        : undefined;
    },

    // Of heads: what they have of a block is moved at once.
    transpose([x], { perm }, { shape }) {
      if (x.rank === 3 && String(perm) === '0,2,1') return isTogether(x) ? imageOfTokens(x) : tokensOfImage(x);
      const rows = x.op.name === 'reshape' && x.rank === 4 && String(perm) === '0,2,1,3' ? x.inputs[0] : undefined;
      if (!rows || !isTogether(rows)) return undefined;
      const runs = rows.shape.at(-1) === shape[1] * shape[3] ? runsOf(shape) : undefined;
      if (!runs) return undefined;
      const { n, blocks, heads, length, parts, run } = runs;
      const inBlocks = rows.inputs[0].reshape([blocks / parts, parts, n, length, heads, run]);
      return inBlocks.transpose([2, 0, 4, 3, 1, 5]).reshape(shape);
    },

    linear: ([x, w, bias]) => product(x, w, true, bias),
    matmul([a, b], attrs) {
      const { transA, transB, alpha } = attrs as { transA: boolean; transB: boolean; alpha: number };
      if (alpha !== 1 || a.rank !== 2 || b.rank !== 2) return undefined;
      const value = a.op.name === 'expand' ? scalarValue(a.inputs[0]) : undefined;
      // Of a gradient, which other products read in blocks.
      if (value !== undefined && a.shape[0] === 1 && !transB && suits(b, b) && isWide(b.shape[1]) && !isApart(b))
        return channelMeans(image(b))
          .mul(a.shape[1] * value)
          .reshape([1, b.shape[1]]);
      if (!transA) return product(a, b, transB);
      if (transB || !suits(a, b) || ![a, b].every((x) => isWide(x.shape[1]) && !isApart(x))) return undefined;
      // The one that is blocked already is a kernel as it lies, but for rows that fill the last block; of two, the wider.
      const [rows, missing] = [a.shape[0], (block - (a.shape[0] % block)) % block];
      const kernelOf = (x: Tensor) => {
        const columns = x.shape[1];
        if (missing === 0) return image(x).reshape([columns, rows, 1, 1]);
        const zeros = layout.filled(columns * missing, 0).reshape([columns / block, missing, block]);
        const filled = concat([image(x).reshape([columns / block, rows, block]), zeros], 1);
        return filled.reshape([columns, rows + missing, 1, 1]);
      };
      const [left, right] = [a, b].map((x) => (isUnblockedRows(x) || images.has(x) ? x.shape[1] : 0));
      const leftInBlocks = left > right || (left === right && !headsOf(b));
      const y = leftInBlocks
        ? blockedConv(transposed(b), kernelOf(a), everyPixel)
        : blockedConv(transposed(a), kernelOf(b), everyPixel);
      return leftInBlocks
        ? unblocked(y).reshape([a.shape[1], b.shape[1]])
        : unblocked(y).reshape([b.shape[1], a.shape[1]]).transpose();
    },
  };
}

/** [N, heads, L, D], where rows [N * L, heads * D] were brought together from there. */
function headsOf(x: Tensor): Tensor | undefined {
  const tokens = x.op.name === 'reshape' ? x.inputs[0] : x;
  if (tokens.op.name !== 'transpose' || String(tokens.attrs.perm) !== '0,2,1,3') return undefined;
  const [, , heads, size] = tokens.shape;
  return heads * size === x.shape[1] ? tokens.inputs[0] : undefined;
}

const MANY_ROWS = 128;
const SHORT_RUN = 8;
const FEW_COLUMNS = 64;

/** [1, height, width, C] as a blocked image. */
const blockedRowsOp: Op<Record<string, never>> = {
  name: 'blockedRows',
  infer: ([
    {
      shape: [n, height, width, c],
      dtype,
    },
  ]) => ({ shape: [n, c, height, width], dtype }),
  emit: (e, { inputs: [x] }) =>
    e.node('ReorderInput', [e.name(x)], { channels_last: { i: 1 } }, { domain: BLOCKED_DOMAIN }),
};
const unblockedRowsOp: Op<{ shape: Shape; block: number }> = {
  name: 'unblockedRows',
  infer: ([{ dtype }], { shape }) => ({ shape, dtype }),
  emit(e, { inputs: [x] }, attrs) {
    const rows = movedRows([x], attrs);
    e.compute([rows]);
    return [e.name(rows)];
  },
};
/** The same in terms of a transposition. */
export const movedRows = ([x]: readonly Tensor[], attrs: Readonly<Record<string, unknown>>): Tensor => {
  const { shape, block } = attrs as { shape: Shape; block: number };
  const [n, columns, height, width] = x.shape;
  return x
    .reshape([n, columns / block, height * width, block])
    .transpose([0, 2, 1, 3])
    .reshape(shape);
};
/** A blocked image as rows of its channels, in a shape that ends with them. */
export const unblockedRows = (x: Tensor, shape: Shape, block: number): Tensor =>
  apply(unblockedRowsOp, [x], { shape, block });
export const isUnblockedRows = (x: Tensor): boolean => x.op.name === 'unblockedRows';
/** Do the positions of all samples lie together in each block of channels? */
const isTogether = (x: Tensor): boolean => isUnblockedRows(x) && x.inputs[0].shape[0] === 1;
