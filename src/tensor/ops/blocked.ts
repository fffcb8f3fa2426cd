import { ndarray } from '../../array/index.js';
import { BLOCKED_DOMAIN } from '../../runtime/index.js';
import { once } from '../once.js';
import { apply, type Op } from '../op.js';
import type { Tensor } from '../tensor.js';
import { type ConvAttrs, convAttrs, extent, onnxConv, type Pair } from './conv.js';
import { constant } from './leaves.js';

/**
 * Images in onnxruntime's blocked layout [N, C / block, H, W, block]. Shapes stay those of the plain layout, as the
 * engine wants them, so that primitives which treat all elements alike need not know.
 */
export class BlockedLayout {
  private readonly images = new Map<Tensor, Tensor>();
  private readonly vectors = new Map<string, Tensor>();

  /** @param block channels of a block. */
  constructor(readonly block: number) {}

  /** Is this an image whose channels fill blocks? */
  fits(x: Tensor): boolean {
    return x.rank === 4 && x.shape[1] % this.block === 0 && x.dtype === 'float32';
  }

  /** Once for all readers: a convolution's input and its gradient each have two. */
  blocked(x: Tensor): Tensor {
    if (isUnblocked(x)) return x.inputs[0];
    return once(this.images, x, () => reordered(x));
  }

  /** A vector of one number, once for all readers. */
  filled(length: number, value: number): Tensor {
    const vector = () => constant(ndarray(new Float32Array(length).fill(value), [length]));
    return once(this.vectors, `${length} ${value}`, vector);
  }
}

/** Was this brought back to the plain layout, so that its input is the blocked one? */
export const isUnblocked = (x: Tensor): boolean => x.op.name === 'unblocked';

type Nothing = Record<string, never>;
const blockedOp: Op<Nothing> = {
  name: 'blocked',
  infer: ([x]) => x,
  emit: (e, { inputs: [x] }) => e.node('ReorderInput', [e.name(x)], {}, { domain: BLOCKED_DOMAIN }),
};
/** [N, C, H, W] as [N, C / block, H, W, block], for any reader. */
export const reordered = (x: Tensor): Tensor => apply(blockedOp, [x], {});
const unblockedOp: Op<Nothing> = {
  name: 'unblocked',
  infer: ([x]) => x,
  emit: (e, { inputs: [x] }) =>
    e.node('ReorderOutput', [e.name(x)], { channels: { i: x.shape[1] } }, { domain: BLOCKED_DOMAIN }),
};
/** A blocked image as a plain one. */
export const unblocked = (x: Tensor): Tensor => apply(unblockedOp, [x], {});

type BlockedConvAttrs = ConvAttrs & { bias: boolean; sum: boolean };
const blockedConvOp: Op<BlockedConvAttrs> = {
  name: 'blockedConv',
  infer: ([x, w], attrs) => {
    const size = ([0, 1] as const).map((i) => extent(x.shape[2 + i], w.shape[2 + i], i, attrs));
    return { shape: [x.shape[0], w.shape[0], ...size], dtype: x.dtype };
  },
  emit(e, { inputs }, { bias, sum, ...attrs }) {
    const names = inputs.map((input) => e.name(input));
    const attributes = { ...onnxConv(attrs), kernel_shape: { ints: inputs[1].shape.slice(2) } };
    const from = sum && !bias ? [names[0], names[1], '', names[2]] : names;
    return e.node('Conv', from, attributes, { domain: BLOCKED_DOMAIN });
  },
};
/**
 * A convolution of blocked images, or of plain ones with fewer channels than a block. The kernel's elements lie as
 * [O / block, C / block, kH, kW, block of C, block of O]; for plain images, and for as many groups as channels, as
 * [O / block, C / groups, kH, kW, block of O].
 * @param sum a blocked image that is added to the result.
 */
export function blockedConv(
  x: Tensor,
  kernel: Tensor,
  { bias, sum, ...attrs }: ConvAttrs & { bias?: Tensor; sum?: Tensor },
): Tensor {
  const more = [bias, sum].filter((y) => y !== undefined);
  return apply(blockedConvOp, [x, kernel, ...more], { ...attrs, bias: bias !== undefined, sum: sum !== undefined });
}

/** Of a convolution that takes every pixel by itself, or the whole image as one. */
export const everyPixel = convAttrs({});

export const isBlockedConv = (x: Tensor): boolean => x.op.name === 'blockedConv';

/** The same convolution with a blocked image added to its result; undefined for one that adds something already. */
export function withSum(x: Tensor, sum: Tensor): Tensor | undefined {
  const attrs = x.attrs as BlockedConvAttrs;
  return isBlockedConv(x) && !attrs.sum ? apply(blockedConvOp, [...x.inputs, sum], { ...attrs, sum: true }) : undefined;
}

const channelMeansOp: Op<Nothing> = {
  name: 'channelMeans',
  infer: ([{ shape, dtype }]) => ({ shape: [shape[0], shape[1], 1, 1], dtype }),
  emit: (e, { inputs: [x] }) => e.node('GlobalAveragePool', [e.name(x)], {}, { domain: BLOCKED_DOMAIN }),
};
/** Means of a blocked image over its positions, [N, C, 1, 1], which is the same in both layouts. */
export const channelMeans = (x: Tensor): Tensor => apply(channelMeansOp, [x], {});

const blockedRepeatOp: Op<{ factor: Pair }> = {
  name: 'blockedRepeat',
  infer: ([{ shape, dtype }], { factor }) => ({ shape: shape.map((d, i) => (i < 2 ? d : d * factor[i - 2])), dtype }),
  emit: (e, { inputs: [x] }, { factor }) =>
    e.node('Upsample', [e.name(x)], { scales: { ints: [1, 1, ...factor] } }, { domain: BLOCKED_DOMAIN }),
};
/** Every pixel of a blocked image repeated. */
export const blockedRepeat = (x: Tensor, factor: Pair): Tensor => apply(blockedRepeatOp, [x], { factor });

const blockedAverageOp: Op<{ kernel: Pair }> = {
  name: 'blockedAverage',
  infer: ([{ shape, dtype }], { kernel }) => ({ shape: shape.map((d, i) => (i < 2 ? d : d / kernel[i - 2])), dtype }),
  emit: (e, { inputs: [x] }, { kernel }) => {
    const attributes = { kernel_shape: { ints: kernel }, strides: { ints: kernel } };
    return e.node('AveragePool', [e.name(x)], attributes, { domain: BLOCKED_DOMAIN });
  },
};
/** Means of a blocked image's non-overlapping windows. */
export const blockedAverage = (x: Tensor, kernel: Pair): Tensor => apply(blockedAverageOp, [x], { kernel });
