import { once } from '../once.js';
import type { Rules } from '../rewrite.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, isUnblocked, unblocked } from './blocked.js';
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
 * [O / block, I, kH kW, block of O]. In steps, matrices transposed and then whole blocks moved: a fifth of the time of one
 * transposition.
 */
export function blockedKernel(w: Tensor, block: number): Tensor {
  const [rows, columns] = w.shape;
  if (columns < block)
    return w
      .reshape([rows / block, block, -1])
      .transpose([0, 2, 1])
      .reshape(w.shape);
  const turned = w.op.name === 'turnedKernel';
  const [o, c, kh = 1, kw = 1] = (turned ? w.inputs[0] : w).shape;
  const inputsFirst = (turned ? w.inputs[0] : w).reshape([o, c * kh * kw]).transpose();
  if (!turned) {
    const blocks = inputsFirst.reshape([c / block, block, kh * kw, o / block, block]);
    return blocks.transpose([3, 0, 2, 1, 4]).reshape(w.shape);
  }
  const tapsFirst = inputsFirst.reshape([c, kh * kw * o]).transpose();
  const blocks = tapsFirst.reshape([kh * kw, o / block, block, c / block, block]).transpose([3, 1, 0, 2, 4]);
  return gather(blocks, turnedTaps(kh * kw), 2).reshape(w.shape);
}
