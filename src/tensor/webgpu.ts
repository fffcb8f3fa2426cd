import { ndarray } from '../array/index.js';
import { type ConvOptions, conv2d, type WeightGradientAttrs, weightGradientByTaps } from './ops/conv.js';
import { gather } from './ops/indexing.js';
import { constant } from './ops/leaves.js';
import { pad, stack } from './ops/shape.js';
import { convOfDoubled } from './ops/upsampledConv.js';
import { plainMatmul, type Rules, rewrite } from './rewrite.js';
import { range } from './shape.js';
import type { Tensor } from './tensor.js';

/** The outputs in primitives that onnxruntime's WebGPU kernels compute, and compute rightly. */
export const forWebGpu = (outputs: readonly Tensor[]): Tensor[] => rewrite(outputs, rules);

const rules: Rules = {
  // FusedMatMul has no kernel.
  matmul: plainMatmul,
  conv2dWeight: ([x, g], attrs) => weightGradientByTaps(x, g, attrs as WeightGradientAttrs),
  // From 6, 9, 15, ... to 4k channels its kernel reads the wrong ones (onnxruntime issue 29651): empty ones fill up.
  conv2d([x, w, bias], { stride, pads, dilation, groups }) {
    const [outputs, channels] = w.shape;
    if (groups !== 1 || channels <= 3 || channels % 3 || channels % 4 === 0 || outputs % 4) return undefined;
    const none = [0, 0];
    const widen = (y: Tensor) => pad(y, [none, [0, 4 - (channels % 4)], none, none]);
    return conv2d(widen(x), widen(w), bias, { stride, padding: pads, dilation } as ConvOptions);
  },
  upsampledConv2d: convOfDoubled,
  // MaxPool does not say where its maxima stood.
  output: ([source]) => (source.op.name === 'maxPool2d' ? maximaOf(source) : undefined),
  logSoftmax([x], { axis }) {
    const shifted = x.sub(x.max(axis as number, true));
    const sum = shifted.exp().sum(axis as number, true);
    return shifted.sub(sum.log());
  },
  or: ([a, b]) => a.not().and(b.not()).not(),
  sign: ([x]) => (x.dtype === 'float32' ? x.greater(0).cast('float32').sub(x.less(0).cast('float32')) : undefined),
  // WGSL promises sines to 5e-4 only, and nothing at all far from zero, where the angles of timesteps are.
  sin([x]) {
    const nearest = x.mul(1 / Math.PI).add(0.5);
    const halfTurns = nearest.floor();
    return alternate(sineNearZero(reduce(x, halfTurns)), halfTurns);
  },
  cos([x]) {
    const halfTurns = x.mul(1 / Math.PI).floor();
    return alternate(sineNearZero(reduce(x, halfTurns.add(0.5))), halfTurns).neg();
  },
};

/** Where each maximum of a pooling stood in its flattened input, int32. */
function maximaOf({ inputs: [x], shape, attrs }: Tensor): Tensor {
  const { kernel, stride, padding } = attrs as { kernel: number; stride: number; padding: number };
  const [[n, channels, height, width], [, , rows, columns]] = [x.shape, shape];
  const [none, edge] = [
    [0, 0],
    [padding, padding],
  ];
  const padded = pad(x, [none, none, edge, edge], LOWEST);
  const offsets = range(kernel * kernel).map((k) => [Math.floor(k / kernel), k % kernel] as const);
  const taps = offsets.map(([i, j]) => {
    const band = padded.slice(2, i, i + (rows - 1) * stride + 1, stride);
    return band.slice(3, j, j + (columns - 1) * stride + 1, stride);
  });
  const int32 = (values: readonly number[], ...dims: number[]) => constant(ndarray(values, dims, 'int32'));
  const steps = (count: number, size: number) => range(count).map((i) => (i * stride - padding) * size);
  const inWindow = offsets.map(([i, j]) => i * width + j);
  const planes = range(n * channels).map((i) => i * height * width);
  return gather(int32(inWindow, inWindow.length), stack(taps).argmax(0))
    .add(int32(planes, n, channels, 1, 1))
    .add(int32(steps(rows, width), rows, 1))
    .add(int32(steps(columns, 1), columns));
}
const LOWEST = -3.4028234663852886e38;

/** x - halfTurns * pi, in three parts of which the first two products are exact (Cody & Waite 1980). */
const reduce = (x: Tensor, halfTurns: Tensor): Tensor =>
  [3.140625, 0.0009675025939941406, 1.509958e-7].reduce((r, part) => r.sub(halfTurns.mul(part)), x);

/** Taylor's series; up to pi / 2 its error is below 1e-7. */
function sineNearZero(r: Tensor): Tensor {
  const square = r.square();
  const series = [1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1];
  return series.reduce((sum, c) => sum.mul(square).add(c), constant(-1 / 39916800)).mul(r);
}

/** Turns the sign where the count is odd. */
const alternate = (y: Tensor, halfTurns: Tensor): Tensor =>
  y.mul(halfTurns.sub(halfTurns.mul(0.5).floor().mul(2)).mul(-2).add(1));
