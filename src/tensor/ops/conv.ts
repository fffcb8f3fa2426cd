import { ndarray } from '../../array/index.js';
import { apply, type Op } from '../op.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { gather } from './indexing.js';
import { constant } from './leaves.js';
import { matmul, matrixTranspose } from './linear.js';
import { pad, slice, stack } from './shape.js';

export interface ConvOptions {
  stride?: number | readonly [number, number];
  /** One number, [height, width], or [[top, bottom], [left, right]]. */
  padding?: number | readonly [number, number] | readonly [readonly [number, number], readonly [number, number]];
  dilation?: number | readonly [number, number];
  groups?: number;
}
export type Pair = readonly [number, number];
export type ConvAttrs = { stride: Pair; pads: readonly [Pair, Pair]; dilation: Pair; groups: number };

const pair = (v: number | Pair): Pair => (typeof v === 'number' ? [v, v] : v);
export const convAttrs = ({ stride = 1, padding = 0, dilation = 1, groups = 1 }: ConvOptions): ConvAttrs => {
  const p = typeof padding === 'number' ? [padding, padding] : padding;
  return { stride: pair(stride), pads: [pair(p[0]), pair(p[1])], dilation: pair(dilation), groups };
};
/** As ONNX writes them. */
export const onnxConv = ({ stride, pads, dilation, groups }: ConvAttrs) => ({
  strides: { ints: stride },
  pads: { ints: [pads[0][0], pads[1][0], pads[0][1], pads[1][1]] },
  dilations: { ints: dilation },
  group: { i: groups },
});
export const extent = (size: number, kernel: number, i: 0 | 1, { stride, pads, dilation }: ConvAttrs): number =>
  Math.floor((size + pads[i][0] + pads[i][1] - dilation[i] * (kernel - 1) - 1) / stride[i]) + 1;

const convOp: Op<ConvAttrs> = {
  name: 'conv2d',
  infer: ([x, w, b], attrs) => {
    const [n, c, h, width] = x.shape;
    const [o, cg, kh, kw] = w.shape;
    if (x.rank !== 4 || w.rank !== 4 || c !== cg * attrs.groups || o % attrs.groups !== 0 || (b && b.size !== o))
      throw new RangeError(
        `conv2d: input [${x.shape}] does not fit the weight [${w.shape}] in ${attrs.groups} group(s)`,
      );
    const shape = [n, o, extent(h, kh, 0, attrs), extent(width, kw, 1, attrs)];
    if (shape[2] < 1 || shape[3] < 1)
      throw new RangeError(`conv2d: input [${x.shape}] is smaller than the kernel ${kh}x${kw}`);
    return { shape, dtype: x.dtype };
  },
  emit: (e, { inputs }, attrs) =>
    e.node(
      'Conv',
      inputs.map((x) => e.name(x)),
      onnxConv(attrs),
    ),
  gradient: ({ inputs: [x, w, b], attrs }) => [
    (g) => inputGradient(g, w, x.shape, attrs),
    (g) => weightGradient(x, g, w.shape, attrs),
    ...(b ? [(g: Tensor) => g.sum([0, 2, 3]).reshape(b.shape)] : []),
  ],
};

/** A plain convolution: what `conv2d` of the index is, but for doubled pixels. */
export const conv2d = (x: Tensor, weight: Tensor, bias?: Tensor, options: ConvOptions = {}): Tensor =>
  apply(convOp, bias ? [x, weight, bias] : [x, weight], convAttrs(options));

const transposedOp: Op<ConvAttrs & { size: Pair }> = {
  name: 'convTranspose2d',
  infer: ([x, w], { groups, size }) => ({ shape: [x.shape[0], w.shape[1] * groups, ...size], dtype: x.dtype }),
  emit: (e, { inputs: [x, w] }, attrs) => {
    // What the forward convolution's rounding left over at the far edge is output padding here.
    const outputPadding = ([0, 1] as const).map(
      (i) => attrs.size[i] - transposedExtent(x.shape[2 + i], w.shape[2 + i], i, attrs),
    );
    return e.node('ConvTranspose', [e.name(x), e.name(w)], {
      ...onnxConv(attrs),
      output_padding: { ints: outputPadding },
    });
  },
  gradient: ({ inputs: [x, w], attrs }) => [
    (g) =>
      apply(convOp, [g, w], { stride: attrs.stride, pads: attrs.pads, dilation: attrs.dilation, groups: attrs.groups }),
    (g) => weightGradient(g, x, w.shape, attrs),
  ],
};
const transposedExtent = (size: number, kernel: number, i: 0 | 1, { stride, pads, dilation }: ConvAttrs): number =>
  (size - 1) * stride[i] + dilation[i] * (kernel - 1) + 1 - pads[i][0] - pads[i][1];

/** PyTorch's ConvTranspose2d without dilation of the output: weight [C, O/groups, kH, kW]. */
export function convTranspose2d(
  x: Tensor,
  weight: Tensor,
  options: ConvOptions & { outputPadding?: number } = {},
): Tensor {
  const attrs = convAttrs(options);
  const extra = options.outputPadding ?? 0;
  const size = ([0, 1] as const).map((i) => transposedExtent(x.shape[2 + i], weight.shape[2 + i], i, attrs) + extra);
  return apply(transposedOp, [x, weight], { ...attrs, size: size as unknown as Pair });
}

function inputGradient(g: Tensor, w: Tensor, shape: readonly number[], attrs: ConvAttrs): Tensor {
  const { stride, dilation, groups } = attrs;
  const far = farPads(attrs, w.shape.slice(2));
  if (stride[0] !== 1 || stride[1] !== 1 || far.flat().some((p) => p < 0))
    return apply(transposedOp, [g, w], { ...attrs, size: [shape[2], shape[3]] as const });
  // With stride 1 it is an ordinary convolution.
  return apply(convOp, [g, turnedKernel(w, groups)], { stride, pads: far, dilation, groups });
}

/** How far the gradient's taps reach beyond its edges. */
export const farPads = ({ pads, dilation }: ConvAttrs, kernel: readonly number[]): ConvAttrs['pads'] => {
  const [vertical, horizontal] = pads.map(([before, after], i): Pair => {
    const reach = dilation[i] * (kernel[i] - 1);
    return [reach - before, reach - after];
  });
  return [vertical, horizontal];
};

/** A kernel turned by 180 degrees, its channels swapped; a primitive so that an engine may lay it out as it likes. */
const turnedOp: Op<{ groups: number }> = {
  name: 'turnedKernel',
  infer: (
    [
      {
        shape: [o, cg, kh, kw],
        dtype,
      },
    ],
    { groups },
  ) => ({ shape: [groups * cg, o / groups, kh, kw], dtype }),
  emit(e, { inputs: [w], shape }, { groups }) {
    const [o, cg, kh, kw] = w.shape;
    const swapped = w.reshape([groups, o / groups, cg, kh * kw]).transpose([0, 2, 1, 3]);
    const turned = gather(swapped, turnedTaps(kh * kw), 3).reshape(shape);
    e.compute([turned]);
    return [e.name(turned)];
  },
  gradient: ({ attrs }) => [(g) => apply(turnedOp, [g], attrs)],
};
/** A kernel [O, C/groups, kH, kW] as the one that takes gradients back, [C, O/groups, kH, kW]. */
export const turnedKernel = (w: Tensor, groups = 1): Tensor => apply(turnedOp, [w], { groups });
/** The taps of a kernel in reverse. */
export const turnedTaps = (count: number): Tensor => constant(ndarray(range(count).reverse(), [count], 'int64'));

export type WeightGradientAttrs = ConvAttrs & { kernel: Pair };
/** Of x and the gradient of the result; a primitive so that an engine may have a better form of it. */
const weightGradientOp: Op<WeightGradientAttrs> = {
  name: 'conv2dWeight',
  infer: ([x, g], { kernel, groups }) => ({ shape: [g.shape[1], x.shape[1] / groups, ...kernel], dtype: x.dtype }),
  emit(e, { inputs: [x, g] }, attrs) {
    const taps = weightGradientByTaps(x, g, attrs);
    e.compute([taps]);
    return [e.name(taps)];
  },
  gradient: ({ inputs: [x, g], attrs: { kernel: _, ...attrs } }) => [
    (gw) => inputGradient(g, gw, x.shape, attrs),
    (gw) => apply(convOp, [x, gw], attrs),
  ],
};
export const weightGradient = (x: Tensor, g: Tensor, [, , kh, kw]: readonly number[], attrs: ConvAttrs): Tensor =>
  apply(weightGradientOp, [x, g], { ...attrs, kernel: [kh, kw] as const });

/** One matrix product per tap of the kernel, over batch and positions at once. */
export function weightGradientByTaps(x: Tensor, g: Tensor, attrs: WeightGradientAttrs): Tensor {
  const { kernel, stride, pads, dilation, groups } = attrs;
  const [n, c] = x.shape;
  const [, o, oh, ow] = g.shape;
  if (4 * o <= c && groups === 1 && stride[0] * stride[1] === 1 && kernel[0] * kernel[1] > 1) {
    const far = farPads(attrs, kernel);
    if (far.flat().every((p) => p >= 0)) return weightGradientByShifts(x, g, attrs, far);
  }
  const length = n * oh * ow;
  const rows = g.transpose([1, 0, 2, 3]).reshape([groups, o / groups, length]);
  const padded = pad(x, [[0, 0], [0, 0], pads[0], pads[1]]);
  if (kernel[0] * kernel[1] * stride[0] * stride[1] === 1) {
    const columns = padded.transpose([1, 0, 2, 3]).reshape([groups, c / groups, length]);
    const product =
      groups === 1
        ? matmul(rows.squeeze(0), columns.squeeze(0), { transB: true })
        : matmul(rows, matrixTranspose(columns));
    return product.reshape([o, c / groups, 1, 1]);
  }
  // Channels last make the slices long runs.
  const last = padded.reshape([n, groups, c / groups, ...padded.shape.slice(2)]).transpose([1, 0, 3, 4, 2]);
  const taps: Tensor[] = [];
  for (let i = 0; i < kernel[0]; i++)
    for (let j = 0; j < kernel[1]; j++) {
      const [top, left] = [i * dilation[0], j * dilation[1]];
      const band = slice(last, 2, top, top + (oh - 1) * stride[0] + 1, stride[0]);
      const tap = slice(band, 3, left, left + (ow - 1) * stride[1] + 1, stride[1]);
      taps.push(matmul(rows, tap.reshape([groups, length, c / groups])));
    }
  return stack(taps, 3).reshape([o, c / groups, ...kernel]);
}

/** The same where the gradient has few channels: then it is shifted past the image, for all taps in one product. */
function weightGradientByShifts(
  x: Tensor,
  g: Tensor,
  { kernel, dilation }: WeightGradientAttrs,
  [vertical, horizontal]: ConvAttrs['pads'],
): Tensor {
  const [n, c, height, width] = x.shape;
  const o = g.shape[1];
  const padded = pad(g, [[0, 0], [0, 0], vertical, horizontal]);
  const shifts = range(kernel[0]).flatMap((i) => {
    const top = (kernel[0] - 1 - i) * dilation[0];
    const band = slice(padded, 2, top, top + height);
    return range(kernel[1]).map((j) => {
      const left = (kernel[1] - 1 - j) * dilation[1];
      return slice(band, 3, left, left + width);
    });
  });
  const taps = kernel[0] * kernel[1];
  const rows = stack(shifts, 1).reshape([n, taps * o, height * width]);
  const products = matmul(rows, x.reshape([n, c, height * width]), { transB: true }).sum(0);
  return products
    .reshape([taps, o, c])
    .transpose([1, 2, 0])
    .reshape([o, c, ...kernel]);
}
