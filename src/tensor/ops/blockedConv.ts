import { ndarray, type Shape, sizeOf } from '../../array/index.js';
import { once } from '../once.js';
import type { Rules } from '../rewrite.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, everyPixel, isUnblocked, reordered, unblocked } from './blocked.js';
import { blockedWeightGradient } from './blockedWeightGradient.js';
import { type ConvAttrs, turnedTaps } from './conv.js';
import { gather } from './indexing.js';
import { constant } from './leaves.js';
import { concat } from './shape.js';

/**
 * Convolutions that onnxruntime's blocked kernels compute: 0.6 times as long as plain ones (docs/performance.md).
 * @param inBlocks a kernel as they read it.
 */
export function blockedConvolutions(
  layout: BlockedLayout,
  inBlocks: (w: Tensor, block: number) => Tensor = blockedKernel,
): Rules {
  const { block } = layout;
  const kernels = new Map<Tensor, Tensor>();
  /** Once for every part of a batch. */
  const kernelOf = (w: Tensor): Tensor => once(kernels, w, () => inBlocks(w, block));

  /** To few channels: every tap's share of each of them at first, a channel of its own, then sums of shifted channels. */
  const byTaps = (image: Tensor, w: Tensor, attrs: ConvAttrs, bias?: Tensor): Tensor => {
    const [o, c, kh, kw] = w.shape;
    const taps = kh * kw;
    const count = blocksOf(o * taps, block) * block;
    const zeros = (...shape: number[]) => layout.filled(sizeOf(shape), 0).reshape(shape);
    const rows = w.reshape([o, c, taps]).transpose([0, 2, 1]);
    const filled = concat([rows.reshape([o * taps, c]), zeros(count - o * taps, c)]);
    const shares = blockedConv(image, blockedKernel(filled.reshape([count, c, 1, 1]), block), everyPixel);
    const picks = new Float32Array(block * count * taps);
    for (let i = 0; i < o * taps; i++) picks[(Math.floor(i / taps) * count + i) * taps + (i % taps)] = 1;
    const picking = blockedKernel(constant(ndarray(picks, [block, count, kh, kw])), block);
    const sums = blockedConv(shares, picking, { ...attrs, bias: bias && concat([bias, zeros(block - o)]) });
    return unblocked(sums).slice(1, 0, o);
  };

  return {
    conv2d([x, w, bias], attrs) {
      const { stride, pads, dilation, groups } = attrs as ConvAttrs;
      const [o, c, kh, kw] = w.shape;
      if (isUnblocked(x) && isFew(w.shape, block) && groups === 1 && String(stride) === '1,1')
        return byTaps(x.inputs[0], w, attrs as ConvAttrs, bias);
      if (groups !== 1 || o % block || (c % block && c > block) || x.dtype !== 'float32') return undefined;
      // A kernel of one pixel costs less than reordering an image for it.
      if (kh * kw === 1 && !isUnblocked(x)) return undefined;
      const image = c < block ? x : layout.blocked(x);
      return unblocked(blockedConv(image, kernelOf(w), { stride, pads, dilation, groups, bias }));
    },

    conv2dWeight: blockedWeightGradient(layout),
  };
}

const blocksOf = (channels: number, block: number): number => Math.ceil(channels / block);
/** So few channels behind it that all taps' shares take less than channels that fill a block. */
const isFew = ([o, c, kh, kw]: Shape, block: number): boolean => {
  const shares = blocksOf(o * kh * kw, block) * block;
  return o < block && c % block === 0 && shares * (c + block * kh * kw) < c * block * kh * kw;
};

/**
 * A kernel [O, I, kH, kW] as [O / block, I / block, kH kW, block of I, block of O]; of fewer channels than a block, as
 * [O / block, I, kH kW, block of O]. The engine's reordering of images brings the last axis there, on all threads, then
 * whole rows are moved.
 */
export function blockedKernel(w: Tensor, block: number): Tensor {
  const [rows, columns, kh = 1, kw = 1] = w.shape;
  const taps = kh * kw;
  if (w.op.name === 'turnedKernel' && columns >= block) {
    const inputsLast = reordered(w.inputs[0].reshape([columns, rows, taps, 1]));
    const moved = inputsLast.reshape([columns / block, block, rows / block, taps, block]).transpose([2, 0, 3, 1, 4]);
    return gather(moved, turnedTaps(taps), 2).reshape(w.shape);
  }
  const outputsLast = reordered(w.reshape([1, rows, columns * taps, 1]));
  if (columns < block || taps === 1) return outputsLast.reshape(w.shape);
  const blocks = outputsLast.reshape([rows / block, columns / block, block, taps, block]);
  return blocks.transpose([0, 1, 3, 2, 4]).reshape(w.shape);
}
