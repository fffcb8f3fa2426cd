import { ndarray } from '../../array/index.js';
import { BLOCKED_DOMAIN } from '../../runtime/index.js';
import { apply, type Op } from '../op.js';
import { type Rules, rewrite } from '../rewrite.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { type ConvAttrs, extent, onnxConv, type Pair, type WeightGradientAttrs } from './conv.js';
import { gather } from './indexing.js';
import { constant } from './leaves.js';
import { pad, split } from './shape.js';

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

  /** [O, I, kH, kW] as [O / block, I / block, kH, kW, block of I, block of O]. */
  const blockedKernel = (w: Tensor): Tensor => {
    const [o, c, kh, kw] = w.shape;
    return once(kernels, w, () =>
      w
        .reshape([o / block, block, c / block, block, kh, kw])
        .transpose([0, 2, 4, 5, 3, 1])
        .reshape(w.shape),
    );
  };

  const rules: Rules = {
    conv2d([x, w, bias], attrs) {
      const { stride, pads, dilation, groups } = attrs as ConvAttrs;
      const [o, c, kh, kw] = w.shape;
      if (groups !== 1 || o % block || c % block || kh * kw === 1 || x.dtype !== 'float32') return undefined;
      const inputs = [blocked(x), blockedKernel(w), ...(bias ? [bias] : [])];
      return unblocked(apply(blockedConvOp, inputs, { stride, pads, dilation, groups, third: 'bias' }));
    },

    // The transposed problem: the image's channels are the batch, and what is summed over, batch and rows, are channels.
    conv2dWeight([x, g], attrs) {
      const { kernel, stride, pads, dilation, groups } = attrs as WeightGradientAttrs;
      const [n, c] = x.shape;
      const [, o, height, width] = g.shape;
      const together = block / gcd(n, block); // bands of rows that fill a block with the batch
      const rows = Math.ceil(height / (together * Math.ceil((4 * g.size) / CACHE_BYTES)));
      const turns = Math.ceil(height / (together * rows));
      const tall = rows * together * turns;
      if (groups !== 1 || o % block || kernel[0] * kernel[1] === 1 || tall > 1.25 * height || x.dtype !== 'float32')
        return undefined;

      const reach = (i: 0 | 1, size: number) => (size - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1;
      const image = framed(x.transpose([1, 0, 2, 3]), [pads[0][0], pads[1][0]], [reach(0, tall), reach(1, width)]);
      const filters = blocked(framed(g, [0, 0], [tall, width]))
        .reshape([n / gcd(n, block), gcd(n, block), o / block, turns, together, rows * width, block])
        .transpose([3, 2, 0, 5, 1, 4, 6]);
      let sum: Tensor | undefined;
      for (const [turn, filter] of split(filters, turns).entries()) {
        const bands = range(together, turn * together).map((band) => range(reach(0, rows), band * rows * stride[0]));
        const at = constant(ndarray(bands.flat(), [together, reach(0, rows)], 'int64'));
        const part = together * turns === 1 ? image : gather(image, at, 2);
        const inputs = [
          blocked(part.reshape([c, n * together, reach(0, rows), image.shape[3]])),
          filter.reshape([o, n * together, rows, width]),
          ...(sum ? [sum] : []),
        ];
        sum = apply(blockedConvOp, inputs, { stride: dilation, pads: none, dilation: stride, groups, third: 'sum' });
      }
      return unblocked(sum!).transpose([1, 0, 2, 3]);
    },
  };
  return rewrite(outputs, rules);
}

/** What a core's second cache holds of the gradient while every channel of the image is taken past it. */
const CACHE_BYTES = 2 ** 20;

const none: readonly [Pair, Pair] = [
  [0, 0],
  [0, 0],
];

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/** The last two axes with zeros before, and with zeros or cut to this size after. */
function framed(x: Tensor, before: Pair, size: Pair): Tensor {
  const after = size.map((length, i) => Math.max(0, length - before[i] - x.shape[2 + i]));
  const [top, left] = before;
  const padded = pad(x, [
    [0, 0],
    [0, 0],
    [top, after[0]],
    [left, after[1]],
  ]);
  return padded.slice(2, 0, size[0]).slice(3, 0, size[1]);
}

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
