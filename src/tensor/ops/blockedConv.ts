import { once } from '../once.js';
import type { Rules } from '../rewrite.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, isUnblocked, reordered, unblocked } from './blocked.js';
import { blockedWeightGradient } from './blockedWeightGradient.js';
import { type ConvAttrs, turnedTaps } from './conv.js';
import { gather } from './indexing.js';

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

  return {
    conv2d([x, w, bias], attrs) {
      const { stride, pads, dilation, groups } = attrs as ConvAttrs;
      const [o, c, kh, kw] = w.shape;
      if (groups !== 1 || o % block || (c % block && c > block) || x.dtype !== 'float32') return undefined;
      // A kernel of one pixel costs less than reordering an image for it.
      if (kh * kw === 1 && !isUnblocked(x)) return undefined;
      const image = c < block ? x : layout.blocked(x);
      return unblocked(blockedConv(image, kernelOf(w), { stride, pads, dilation, groups, bias }));
    },

    conv2dWeight: blockedWeightGradient(layout),
  };
}

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
