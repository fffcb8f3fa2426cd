import { ndarray } from '../../array/index.js';
import { BLOCKED_DOMAIN } from '../../runtime/index.js';
import { apply, type Op } from '../op.js';
import { type Rules, rewrite } from '../rewrite.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { type ConvAttrs, extent, onnxConv, type Pair, turnedTaps, type WeightGradientAttrs } from './conv.js';
import { gather } from './indexing.js';
import { concat, split } from './shape.js';

/**
 * The outputs with convolutions that onnxruntime's blocked kernels compute: 0.6 times as long as plain ones, which
 * it replaces by itself only where the weights are constants (docs/performance.md).
 * @param block channels of a block. Shapes stay those of the plain layout, as the engine wants them.
 */
export function withBlockedConvolutions(outputs: readonly Tensor[], block: number): Tensor[] {
  const images = new Map<Tensor, Tensor>();
  const kernels = new Map<Tensor, Tensor>();
  /** A convolution's input and its gradient each have two readers, a weight has one for every part of a batch. */
  const once = (known: Map<Tensor, Tensor>, x: Tensor, build: () => Tensor): Tensor => {
    const made = known.get(x) ?? build();
    known.set(x, made);
    return made;
  };
  const blocked = (x: Tensor) => once(images, x, () => apply(blockedOp, [x], {}));
  const unblocked = (x: Tensor) => apply(unblockedOp, [x], {});

  /** [O, I, kH, kW] as [O / block, I / block, kH kW, block of I, block of O]. */
  const blockedKernel = (w: Tensor): Tensor =>
    once(kernels, w, () => {
      const turned = w.op.name === 'turnedKernel';
      const [o, c, kh, kw] = (turned ? w.inputs[0] : w).shape;
      const blocks = (turned ? w.inputs[0] : w).reshape([o / block, block, c / block, block, kh * kw]);
      if (!turned) return blocks.transpose([0, 2, 4, 3, 1]).reshape(w.shape);
      return gather(blocks.transpose([2, 0, 4, 1, 3]), turnedTaps(kh * kw), 2).reshape(w.shape);
    });

  const rules: Rules = {
    conv2d([x, w, bias], attrs) {
      const { stride, pads, dilation, groups } = attrs as ConvAttrs;
      const [o, c, kh, kw] = w.shape;
      if (groups !== 1 || o % block || c % block || kh * kw === 1 || x.dtype !== 'float32') return undefined;
      const inputs = [blocked(x), blockedKernel(w), ...(bias ? [bias] : [])];
      return unblocked(apply(blockedConvOp, inputs, { stride, pads, dilation, groups, third: 'bias' }));
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

      const filters = blocked(window(g, [0, 0], [tall, width]))
        .reshape([n / samples, samples, o / block, turns, bands, rows * width, block])
        .transpose([0, 3, 2, 5, 4, 1, 6])
        .reshape([(n / samples) * turns, o, block, rows, width]);
      const reach = (i: 0 | 1, size: number) => (size - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1;
      const size: Pair = [reach(0, rows), reach(1, width)];
      const images = split(x, n / samples).flatMap((part) =>
        range(turns).map((turn) => {
          const band = (i: number) => (turn * bands + i) * rows * stride[0] - pads[0][0];
          const channels = concat(range(bands).map((i) => window(part, [band(i), -pads[1][0]], size)));
          return blocked(channels.reshape([1, block, c * size[0], size[1]])).reshape([c, block, ...size]);
        }),
      );
      const sum = split(filters, images.length).reduce<Tensor | undefined>((before, filter, i) => {
        const inputs = [images[i], filter.squeeze(0), ...(before ? [before] : [])];
        return apply(blockedConvOp, inputs, { stride: dilation, pads: none, dilation: stride, groups, third: 'sum' });
      }, undefined);
      return unblocked(sum!).transpose([1, 0, 2, 3]);
    },
  };
  return rewrite(outputs, rules);
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

type Nothing = Record<string, never>;
const blockedOp: Op<Nothing> = {
  name: 'blocked',
  infer: ([x]) => x,
  emit: (e, { inputs: [x] }) => e.node('ReorderInput', [e.name(x)], {}, { domain: BLOCKED_DOMAIN }),
};
const unblockedOp: Op<Nothing> = {
  name: 'unblocked',
  infer: ([x]) => x,
  emit: (e, { inputs: [x] }) =>
    e.node('ReorderOutput', [e.name(x)], { channels: { i: x.shape[1] } }, { domain: BLOCKED_DOMAIN }),
};

type BlockedConvAttrs = ConvAttrs & { third: 'bias' | 'sum' };
/** Its third input is a bias [O], or what the result is added to. */
const blockedConvOp: Op<BlockedConvAttrs> = {
  name: 'blockedConv',
  infer: ([x, w], attrs) => {
    const size = ([0, 1] as const).map((i) => extent(x.shape[2 + i], w.shape[2 + i], i, attrs));
    return { shape: [x.shape[0], w.shape[0], ...size], dtype: x.dtype };
  },
  emit(e, { inputs }, { third, ...attrs }) {
    const [x, w, ...more] = inputs.map((input) => e.name(input));
    const attributes = { ...onnxConv(attrs), kernel_shape: { ints: inputs[1].shape.slice(2) } };
    const from = third === 'sum' && more.length > 0 ? [x, w, '', ...more] : [x, w, ...more];
    return e.node('Conv', from, attributes, { domain: BLOCKED_DOMAIN });
  },
};
