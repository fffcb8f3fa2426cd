import { ndarray } from '../../array/index.js';
import { apply, furtherOutput, type Op } from '../op.js';
import type { Tensor } from '../tensor.js';
import { gather, scatterAdd } from './indexing.js';
import { constant } from './leaves.js';

type Pair = readonly [number, number];
const planes = (x: Tensor, what: string): void => {
  if (x.rank !== 4) throw new RangeError(`${what}: needs [N, C, H, W], got [${x.shape}]`);
};

const averageOp: Op<{ kernel: Pair }> = {
  name: 'avgPool2d',
  infer: ([x], { kernel: [h, w] }) => {
    planes(x, 'avgPool2d');
    if (x.shape[2] % h || x.shape[3] % w)
      throw new RangeError(`avgPool2d: [${x.shape}] is not a multiple of ${h}x${w}`);
    return { shape: [x.shape[0], x.shape[1], x.shape[2] / h, x.shape[3] / w], dtype: x.dtype };
  },
  emit: (e, { inputs: [x] }, { kernel }) =>
    e.node('AveragePool', [e.name(x)], { kernel_shape: { ints: kernel }, strides: { ints: kernel } }),
  gradient: ({ attrs: { kernel } }) => [(g) => repeat(g, kernel).mul(1 / (kernel[0] * kernel[1]))],
};
/** Mean of non-overlapping windows. @throws RangeError when they do not tile the image. */
export const avgPool2d = (x: Tensor, kernel: number | Pair = 2): Tensor =>
  apply(averageOp, [x], { kernel: typeof kernel === 'number' ? [kernel, kernel] : kernel });

const repeatOp: Op<{ factor: Pair }> = {
  name: 'repeat2d',
  infer: ([x], { factor: [h, w] }) => ({
    shape: [x.shape[0], x.shape[1], x.shape[2] * h, x.shape[3] * w],
    dtype: x.dtype,
  }),
  emit: (e, { inputs: [x] }, { factor }) =>
    e.node('Resize', [e.name(x), '', e.constant(ndarray([1, 1, ...factor], [4]))], {
      mode: { s: 'nearest' },
      coordinate_transformation_mode: { s: 'asymmetric' },
      nearest_mode: { s: 'floor' },
    }),
  gradient: ({ attrs: { factor } }) => [(g) => avgPool2d(g, factor).mul(factor[0] * factor[1])],
};
const repeat = (x: Tensor, factor: Pair): Tensor => apply(repeatOp, [x], { factor });

/** torch.nn.functional.interpolate(mode='nearest') to [height, width]. */
export function resizeNearest(x: Tensor, size: Pair): Tensor {
  planes(x, 'resizeNearest');
  const factor: Pair = [size[0] / x.shape[2], size[1] / x.shape[3]];
  if (factor.every(Number.isInteger)) return factor[0] * factor[1] === 1 ? x : repeat(x, factor);
  return ([0, 1] as const).reduce((y, i) => {
    const from = Array.from({ length: size[i] }, (_, at) => Math.floor((at * x.shape[2 + i]) / size[i]));
    return gather(y, constant(ndarray(from, [size[i]], 'int64')), 2 + i);
  }, x);
}

type MaxAttrs = { kernel: number; stride: number; padding: number };
const maxOp: Op<MaxAttrs> = {
  name: 'maxPool2d',
  infer: ([x], { kernel, stride, padding }) => {
    planes(x, 'maxPool2d');
    const out = (d: number) => Math.floor((d + 2 * padding - kernel) / stride) + 1;
    return { shape: [x.shape[0], x.shape[1], out(x.shape[2]), out(x.shape[3])], dtype: x.dtype };
  },
  emit: (e, node, { kernel, stride, padding }) =>
    e.node(
      'MaxPool',
      [e.name(node.inputs[0])],
      {
        kernel_shape: { ints: [kernel, kernel] },
        strides: { ints: [stride, stride] },
        pads: { ints: [padding, padding, padding, padding] },
      },
      { outputs: [true, e.uses(node, 1)] },
    ),
  // The second output is where each maximum stood in the flattened input.
  gradient: ({ inputs: [x], output }) => [
    (g) => scatterAdd([x.size], furtherOutput(output, 1).reshape([-1]), g.reshape([-1]), 0).reshape(x.shape),
  ],
  further: (node) => [{ shape: node.shape, dtype: 'int64' }],
};
export const maxPool2d = (x: Tensor, kernel = 2, stride = kernel, padding = 0): Tensor =>
  apply(maxOp, [x], { kernel, stride, padding });
