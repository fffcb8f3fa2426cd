import { ndarray } from '../../array/index.js';
import { apply, type Op } from '../op.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import {
  type ConvAttrs,
  type ConvOptions,
  convAttrs,
  conv2d as convolve,
  turnedKernel,
  weightGradient,
} from './conv.js';
import { constant } from './leaves.js';
import { matmul } from './linear.js';
import { resizeNearest } from './resample.js';

type Nothing = Record<string, never>;
/**
 * A convolution 3x3 of doubled pixels. Of the pixels themselves it is a transposed convolution with stride 2 and a kernel
 * 4x4, each of whose results sees 2x2 of them: 4 products in place of 9, and for its gradients as well.
 */
const upsampledConvOp: Op<Nothing> = {
  name: 'upsampledConv2d',
  infer: ([x, w]) => ({ shape: [x.shape[0], w.shape[0], 2 * x.shape[2], 2 * x.shape[3]], dtype: x.dtype }),
  emit(e, { inputs }) {
    const y = convOfDoubled(inputs);
    e.compute([y]);
    return [e.name(y)];
  },
  gradient: ({ inputs: [x, w, bias] }) => [
    (g) => convolve(g, spreadKernel(w), undefined, { stride: 2, padding: 1 }),
    (g) => gatheredKernel(weightGradient(g, x, spreadShape(w), halvingAttrs)),
    ...(bias ? [(g: Tensor) => g.sum([0, 2, 3]).reshape(bias.shape)] : []),
  ],
};

/** The same as it was written: a convolution of an image whose pixels are doubled before. */
export const convOfDoubled = ([x, w, bias]: readonly Tensor[]): Tensor =>
  convolve(resizeNearest(x, [2 * x.shape[2], 2 * x.shape[3]]), w, bias, { padding: 1 });

/**
 * Cross-correlation as in PyTorch: x [N, C, H, W], weight [O, C/groups, kH, kW], bias [O].
 * @throws RangeError when weight or bias do not fit x, and for an image smaller than the kernel.
 */
export function conv2d(x: Tensor, weight: Tensor, bias?: Tensor, options: ConvOptions = {}): Tensor {
  const y = convolve(x, weight, bias, options);
  const isDoubled = x.op.name === 'repeat2d' && String(x.attrs.factor) === '2,2';
  const { stride, pads, dilation, groups } = y.attrs as ConvAttrs;
  if (!isDoubled || String([weight.shape.slice(2), stride, pads, dilation, groups]) !== SAME_3X3) return y;
  return apply(upsampledConvOp, [x.inputs[0], ...y.inputs.slice(1)], {});
}
const SAME_3X3 = '3,3,1,1,1,1,1,1,1,1,1';

/** Of the convolution that takes a gradient back to the pixels before they were doubled. */
export const halvingAttrs = convAttrs({ stride: 2, padding: 1 });

/** [3 * 3, 4 * 4]: where each tap of a kernel goes when it is spread over two pixels that were one. */
const spreadTaps = range(9).map((tap) => {
  const [row, column] = [Math.floor(tap / 3), tap % 3];
  return range(16).map((at) => Number([0, 1].includes(Math.floor(at / 4) - row) && [0, 1].includes((at % 4) - column)));
});
const spread = constant(ndarray(spreadTaps.flat(), [9, 16]));
const spreadInReverse = constant(
  ndarray(
    spreadTaps.flatMap((taps) => taps.toReversed()),
    [9, 16],
  ),
);
/** A kernel [O, C, 3, 3] of doubled pixels as that of `convTranspose2d` [C, O, 4, 4]. */
export function spreadKernel(w: Tensor): Tensor {
  const [o, c] = w.shape;
  return turnedKernel(matmul(w.reshape([o * c, 9]), spread).reshape([o, c, 4, 4]));
}
const spreadShape = ({ shape: [o, c] }: Tensor): readonly number[] => [c, o, 4, 4];
/** Its adjoint, [C, O, 4, 4] to [O, C, 3, 3], which turns the kernel back as well. */
function gatheredKernel(w: Tensor): Tensor {
  const [c, o] = w.shape;
  const rows = w.transpose([1, 0, 2, 3]).reshape([o * c, 16]);
  return matmul(rows, spreadInReverse, { transB: true }).reshape([o, c, 3, 3]);
}
