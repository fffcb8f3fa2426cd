import { ndarray } from '../../array/index.js';
import { apply, type Op } from '../op.js';
import type { Rules } from '../rewrite.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, isUnblocked, unblocked } from './blocked.js';
import { type ConvAttrs, type Pair, turnedTaps, type WeightGradientAttrs } from './conv.js';
import { gather } from './indexing.js';
import { concat, split } from './shape.js';

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
  const kernelOf = (w: Tensor): Tensor => {
    const known = kernels.get(w) ?? inBlocks(w, block);
    kernels.set(w, known);
    return known;
  };

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

    // The transposed problem: channels are the batch, and what is summed over, samples and bands of rows, are channels,
    // one block of them at a time.
    conv2dWeight([x, g], attrs) {
      const { kernel, stride, pads, dilation, groups } = attrs as WeightGradientAttrs;
      const [n, c] = x.shape;
      const [, o, height, width] = g.shape;
      const samples = gcd(n, block);
      const bands = block / samples;
      const turns = Math.ceil((4 * samples * o * height * width) / CACHE_BYTES);
      const rows = Math.ceil(height / (bands * turns));
      const tall = rows * bands * turns;
      if (groups !== 1 || o % block || kernel[0] * kernel[1] === 1 || tall > 1.25 * height || x.dtype !== 'float32')
        return undefined;

      const blocks = layout.blocked(g).reshape([n, o / block, height, width * block]);
      const filters = window(blocks, [0, 0], [tall, width * block])
        .reshape([n / samples, samples, o / block, turns, bands, rows * width, block])
        .transpose([0, 3, 2, 5, 4, 1, 6])
        .reshape([(n / samples) * turns, o, block, rows, width]);
      const reach = (i: 0 | 1, size: number) => (size - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1;
      const size: Pair = [reach(0, rows), reach(1, width)];
      // Blocked rows are longer runs to cut from.
      const cut = (part: Tensor, from: Pair): Tensor => {
        if (!isUnblocked(x)) return window(part, from, size);
        const runs = window(part, [from[0], from[1] * block], [size[0], size[1] * block]);
        return unblocked(runs.reshape([samples, c, ...size]));
      };
      const source = isUnblocked(x) ? layout.blocked(x).reshape([n, c / block, x.shape[2], x.shape[3] * block]) : x;
      const images = split(source, n / samples).flatMap((part) =>
        range(turns).map((turn) => {
          const band = (i: number) => (turn * bands + i) * rows * stride[0] - pads[0][0];
          const channels = concat(range(bands).map((i) => cut(part, [band(i), -pads[1][0]])));
          return layout.blocked(channels.reshape([1, block, c * size[0], size[1]])).reshape([c, block, ...size]);
        }),
      );
      const sum = split(filters, images.length).reduce<Tensor | undefined>((before, filter, i) => {
        const transposed = { stride: dilation, pads: none, dilation: stride, groups };
        return blockedConv(images[i], filter.squeeze(0), { ...transposed, sum: before });
      }, undefined);
      return unblocked(sum!).transpose([1, 0, 2, 3]);
    },
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
  const [o, c, kh, kw] = (turned ? w.inputs[0] : w).shape;
  const inputsFirst = (turned ? w.inputs[0] : w).reshape([o, c * kh * kw]).transpose();
  if (!turned) {
    const blocks = inputsFirst.reshape([c / block, block, kh * kw, o / block, block]);
    return blocks.transpose([3, 0, 2, 1, 4]).reshape(w.shape);
  }
  const tapsFirst = inputsFirst.reshape([c, kh * kw * o]).transpose();
  const blocks = tapsFirst.reshape([kh * kw, o / block, block, c / block, block]).transpose([3, 1, 0, 2, 4]);
  return gather(blocks, turnedTaps(kh * kw), 2).reshape(w.shape);
}

/** What of the filters a core's second cache holds while the channels, one after another, are taken past them. */
const CACHE_BYTES = 2 ** 20;

const none: readonly [Pair, Pair] = [
  [0, 0],
  [0, 0],
];

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

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
