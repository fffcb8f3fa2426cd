import { ndarray } from '../../array/index.js';
import { apply } from '../op.js';
import { type Rules, rewrite } from '../rewrite.js';
import { range, sameShape } from '../shape.js';
import type { Tensor } from '../tensor.js';
import type { AffineAttrs } from './affine.js';
import {
  BlockedLayout,
  blockedAverage,
  blockedConv,
  blockedRepeat,
  channelMeans,
  everyPixel,
  isUnblocked,
  unblocked,
} from './blocked.js';
import { blockedConvolutions } from './blockedConv.js';
import { blockedProducts, isUnblockedRows, movedRows, unblockedRows } from './blockedLinear.js';
import { blockedTransposedConvolutions } from './blockedTransposedConv.js';
import { type ScaleShiftAttrs, scaleShift } from './channels.js';
import type { Pair } from './conv.js';
import { gatedSums, sumsInConvolutions } from './fusedSums.js';
import { gather } from './indexing.js';
import { constant } from './leaves.js';
import { type GroupNormAttrs, groupNormByChannels } from './normalize.js';
import { rowMoves } from './rowMoves.js';
import { concat } from './shape.js';

/**
 * The outputs with convolutions, and what stands between them, in onnxruntime's blocked layout, which by itself it uses
 * only where weights are constants, and hardly for anything between convolutions.
 * @param block channels of a block.
 */
export function withBlockedLayout(outputs: readonly Tensor[], block: number, frozen?: FrozenWeights): Tensor[] {
  const layout = new BlockedLayout(block);
  const rewritten = rewrite(outputs, {
    ...betweenConvolutions(layout, frozen?.leastNorm),
    ...blockedConvolutions(layout, frozen?.kernelInBlocks),
    ...(frozen ? {} : blockedTransposedConvolutions(layout)),
    ...blockedProducts(layout, frozen?.kernelInBlocks, frozen?.isWorthBlocks, frozen !== undefined),
  });
  const summed = gatedSums(sumsInConvolutions(rewritten));
  return rewrite(summed, { unblockedRows: movedRows, transpose: rowMoves() });
}

export interface FrozenWeights {
  /** A kernel, or a matrix [out, in], as convolutions read it. */
  kernelInBlocks(w: Tensor, block: number): Tensor;
  /** Does the product with a matrix gain from blocks? */
  isWorthBlocks(w: Tensor): boolean;
  /** Elements of an image from which its group norm is computed in blocks: that takes less memory, but more nodes. */
  readonly leastNorm: number;
}

/** What reads images that come from a blocked convolution, and can as well read the blocked ones. */
function betweenConvolutions(layout: BlockedLayout, leastNorm?: number): Rules {
  const { block } = layout;
  const norms = new Map<Tensor, readonly Tensor[]>();
  /** Images plus a value for every channel, as the two: norms take them so. */
  const offsets = new Map<Tensor, readonly [image: Tensor, offset: Tensor]>();
  /** Samples as further channels: then every channel of every sample can have a kernel of its own. */
  const flat = (blocked: Tensor): Tensor => {
    const [n, c, height, width] = blocked.shape;
    return blocked.reshape([1, n * c, height, width]);
  };
  const channelwise = (blocked: Tensor, kernel: Tensor, more: { bias?: Tensor; sum?: Tensor } = {}): Tensor =>
    blockedConv(flat(blocked), kernel, { ...everyPixel, groups: kernel.shape[0], ...more });

  /** Operands of what treats all elements alike, in blocks if some of them come from there, and its result as they were. */
  const inBlocks = (inputs: readonly Tensor[], { shape, dtype }: Tensor) => {
    const alike = (x: Tensor) => sameShape(x.shape, shape);
    const image = inputs.find((x) => (isUnblocked(x) || isUnblockedRows(x)) && alike(x));
    if (!image || dtype !== 'float32') return undefined;
    const rows = isUnblockedRows(image);
    const operands = inputs.flatMap((x) => {
      if (x.size === 1) return x;
      // The same positions may be rows of another length.
      const [own, common] = [x.inputs[0], image.inputs[0]];
      if (rows)
        return isUnblockedRows(x) && alike(x) && own.shape[0] === common.shape[0] ? own.reshape(common.shape) : [];
      return alike(x) && x.op.name !== 'expand' ? layout.blocked(x) : [];
    });
    if (operands.length < inputs.length) return undefined;
    return { operands, plain: (y: Tensor) => (rows ? unblockedRows(y, shape, block) : unblocked(y)) };
  };

  /** An image and one value for every channel, or for every channel of every sample. */
  const withChannels = (name: string, x: Tensor, operand: Tensor, imageFirst: boolean): Tensor | undefined => {
    const [n, c] = x.shape;
    const values = operand.op.name === 'expand' ? operand.inputs[0] : operand;
    const dims = [...Array.from({ length: 4 - values.rank }, () => 1), ...values.shape];
    if (dims[1] !== c || dims[2] * dims[3] !== 1) return undefined;
    const each = values.reshape(dims).expand([n, c, 1, 1]);
    const ones = layout.filled(n * c, 1).reshape([n, c, 1, 1]);
    if (name === 'mul') return scaleShift(x, each);
    if (name === 'add') return scaleShift(x, ones, each);
    return name === 'sub' && imageFirst ? scaleShift(x, ones, each.neg()) : undefined;
  };

  return {
    blocked: ([x]) => (isUnblocked(x) ? x.inputs[0] : undefined),

    elementwise(inputs, attrs, original) {
      const { op, shape, dtype } = original;
      const blocks = inBlocks(inputs, original);
      if (blocks) return blocks.plain(apply(op, blocks.operands, attrs));
      const image = inputs.find(isUnblocked);
      if (!image || dtype !== 'float32' || !sameShape(image.shape, shape)) return undefined;
      const [first, second] = inputs;
      return withChannels(op.name, image, first === image ? second : first, first === image);
    },
    // In one pass, as a kernel of one pixel with a bias.
    affine(inputs, attrs, original) {
      const blocks = inBlocks(inputs, original);
      if (!blocks) return undefined;
      const { scale, shift } = attrs as AffineAttrs;
      const [x, addend] = blocks.operands;
      const count = x.shape[0] * x.shape[1];
      const kernel = layout.filled(count, scale).reshape([count, 1, 1, 1]);
      const bias = shift === 0 ? undefined : layout.filled(count, shift);
      return blocks.plain(channelwise(x, kernel, { bias, sum: addend && flat(addend) }).reshape(x.shape));
    },

    scaleShift([x, scale, ...summands], attrs) {
      const { shift, addend } = attrs as ScaleShiftAttrs;
      if (!isUnblocked(x)) return undefined;
      const count = x.shape[0] * x.shape[1];
      const bias = shift ? summands[0].reshape([count]) : undefined;
      const sum = addend ? flat(layout.blocked(summands[summands.length - 1])) : undefined;
      const y = unblocked(channelwise(x.inputs[0], scale.reshape([count, 1, 1, 1]), { bias, sum }).reshape(x.shape));
      if (shift && !addend && scale.inputs[0] === layout.filled(count, 1)) offsets.set(y, [x, summands[0]]);
      return y;
    },

    // The one image is a kernel as large as the other.
    channelProducts([x, y], _, { shape }) {
      if (!isUnblocked(x) && !isUnblocked(y)) return undefined;
      const [n, c, height, width] = x.shape;
      return channelwise(layout.blocked(x), layout.blocked(y).reshape([n * c, 1, height, width])).reshape(shape);
    },

    mean: ([x], { axes }, { shape }) =>
      isUnblocked(x) && String(axes) === '2,3' ? channelMeans(x.inputs[0]).reshape(shape) : undefined,
    sum([x], { axes, keepDims }, { shape }) {
      const perSample = String(axes) === '2,3';
      if (!isUnblocked(x) || (!perSample && String(axes) !== '0,2,3')) return undefined;
      const means = channelMeans(x.inputs[0]);
      return (perSample ? means : means.sum(0, keepDims as boolean)).mul(x.shape[2] * x.shape[3]).reshape(shape);
    },

    groupNorm(inputs, attrs, original) {
      if (!isUnblocked(inputs[0]) || inputs[0].size < (leastNorm ?? 0)) return undefined;
      const [x, ...offset] = offsets.get(inputs[0]) ?? [inputs[0]];
      const operands = [x, ...inputs.slice(1), ...offset];
      const results = groupNormByChannels(operands, attrs as GroupNormAttrs, leastNorm !== undefined);
      norms.set(original, results);
      return results[0];
    },
    output: (_, { index }, original) => norms.get(original.inputs[0])?.[index as number],

    concat(xs, { axis }) {
      const together = axis === 1 && xs.some(isUnblocked) && xs.every((x) => layout.fits(x));
      return together
        ? unblocked(
            concat(
              xs.map((x) => layout.blocked(x)),
              1,
            ),
          )
        : undefined;
    },
    slice([x], attrs) {
      const { axis, start, end, step } = attrs as Readonly<Record<string, number>>;
      const whole = axis === 1 && step === 1 && start % block === 0 && end % block === 0;
      if (!isUnblocked(x) || !whole) return undefined;
      const [n, c, height, width] = x.shape;
      const blocks = x.inputs[0].reshape([n, c / block, height * width * block]);
      const indices = constant(ndarray(range((end - start) / block, start / block), undefined, 'int32'));
      return unblocked(gather(blocks, indices, 1).reshape([n, end - start, height, width])); // Slice has one thread
    },
    repeat2d: ([x], { factor }) => (isUnblocked(x) ? unblocked(blockedRepeat(x.inputs[0], factor as Pair)) : undefined),
    avgPool2d: ([x], { kernel }) =>
      isUnblocked(x) ? unblocked(blockedAverage(x.inputs[0], kernel as Pair)) : undefined,
  };
}
