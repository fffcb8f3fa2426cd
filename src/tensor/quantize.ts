import { type NdArray, ndarray } from '../array/index.js';
import { apply, type Emitter, type Op } from './op.js';
import { type ConvAttrs, extent } from './ops/conv.js';
import { constant } from './ops/leaves.js';
import { convOfDoubled } from './ops/upsampledConv.js';
import { PreparedWeight, preparedWeight, withNumbers } from './preparedWeight.js';
import { type Rule, rewrite } from './rewrite.js';
import { range } from './shape.js';
import type { Tensor } from './tensor.js';
import { Variable } from './variable.js';

/**
 * The outputs with products and convolutions of large weights in 8 bits (Jacob et al. 2018): weights symmetric with one
 * scale for each output channel, rounded once; what they are multiplied by with one scale for the tensor, found at each
 * call; sums in 32 bits. For inference on the CPU.
 */
export const quantized = (outputs: readonly Tensor[]): Tensor[] =>
  rewrite(outputs, { linear, conv2d, upsampledConv2d });

/** Smaller weights are not worth the error. */
const LARGE = 2 ** 16;
/** Patches of an image beyond this many bytes would cost more memory than its weights save. */
const PATCH_BYTES = 2 ** 26;

const isLarge = (x: Tensor): x is Variable => x instanceof Variable && x.size >= LARGE && x.dtype === 'float32';

const linear: Rule = ([x, weight, bias]) => {
  if (!isLarge(weight)) return undefined;
  const values = ofWeight(weight);
  return apply(productOp, bias ? [x, values, values.scales, bias] : [x, values, values.scales], {});
};

const conv2d: Rule = ([x, weight, bias], attrs) => {
  const { groups } = attrs as ConvAttrs;
  if (!isLarge(weight) || groups !== 1) return undefined;
  const [o, c, ...kernel] = weight.shape;
  const [height, width] = kernel.map((side, i) => extent(x.shape[2 + i], side, i as 0 | 1, attrs as ConvAttrs));
  if (x.shape[0] * height * width * c * kernel[0] * kernel[1] > PATCH_BYTES) return undefined;
  const values = ofWeight(weight);
  const y = apply(convOp, [x, values, values.scales], { ...(attrs as ConvAttrs), kernel, size: [height, width] });
  return bias ? y.add(bias.reshape([o, 1, 1])) : y;
};

const upsampledConv2d: Rule = (inputs, _, original) => {
  const { inputs: operands, attrs } = convOfDoubled(inputs);
  return conv2d(operands, attrs, original);
};

/** A weight in 8 bits, [taps of a kernel * in, out]. */
class QuantizedWeight extends PreparedWeight {
  constructor(
    values: NdArray<'int8'>,
    /** [out] */
    readonly scales: Tensor,
    source: Variable,
  ) {
    super(values, source);
  }
}

const ofWeight = (weight: Variable): QuantizedWeight =>
  preparedWeight(weight, '8 bits', () => {
    const { values, scales } = withNumbers(weight, quantize);
    return new QuantizedWeight(values, constant(scales), weight);
  });

/** Of a square that is turned in the cache, a line of it for each column. */
const SIDE = 64;

/**
 * Rounds a weight [out, in] or [out, in, kH, kW] to whole numbers in -127..127 times a scale for each row.
 * @returns values [kH * kW * in, out]
 */
export function quantize({ shape, data }: NdArray<'float32'>): { values: NdArray<'int8'>; scales: NdArray<'float32'> } {
  const [out, channels] = shape;
  const width = data.length / out;
  const taps = width / channels;
  const scales = new Float32Array(out);
  for (let row = 0; row < out; row++) {
    let most = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      const x = data[i];
      if (x > most) most = x;
      else if (-x > most) most = -x;
    }
    scales[row] = most / 127 || 1;
  }
  const values = new Int8Array(data.length);
  const places = Int32Array.from({ length: width }, (_, i) => ((i % taps) * channels + Math.floor(i / taps)) * out);
  for (let top = 0; top < out; top += SIDE)
    for (let left = 0; left < width; left += SIDE) {
      const [bottom, right] = [Math.min(out, top + SIDE), Math.min(width, left + SIDE)];
      for (let row = top; row < bottom; row++) {
        const inverse = 1 / scales[row];
        // Rounded up from a half: positive before it is cut off.
        for (let i = left, from = row * width + left; i < right; i++, from++)
          values[places[i] + row] = ((data[from] * inverse + 128.5) | 0) - 128;
      }
    }
  return { values: ndarray<'int8'>(values, [width, out], 'int8'), scales: ndarray(scales) };
}

type Nothing = Record<string, never>;
/** x [M, in] times a weight [in, out] in 8 bits, plus the bias. */
const productOp: Op<Nothing> = {
  name: 'quantizedProduct',
  infer: ([x, values]) => ({ shape: [x.shape[0], values.shape[1]], dtype: 'float32' }),
  emit(e, { inputs: [x, values, scales, bias] }) {
    const rounded = e.node('DynamicQuantizeLinear', [e.name(x)], {}, { outputs: [true, true, true] });
    const y = scaledProduct(e, rounded, rounded[0], e.name(values), e.name(scales));
    return bias ? e.node('Add', [y, e.name(bias)]) : [y];
  },
};

type QuantizedConvAttrs = ConvAttrs & { kernel: readonly number[]; size: readonly number[] };
/** A convolution of x [N, C, H, W] as one product of its patches, channels last, and a weight [kH kW C, O] in 8 bits. */
const convOp: Op<QuantizedConvAttrs> = {
  name: 'quantizedConv',
  infer: ([x, values], { size }) => ({ shape: [x.shape[0], values.shape[1], ...size], dtype: 'float32' }),
  emit(e, { inputs: [x, values, scales], shape: [n, o] }, { kernel, size, stride, pads, dilation }) {
    const int64 = (list: readonly number[]) => e.constant(ndarray(list, [list.length], 'int64'));
    const rounded = e.node('DynamicQuantizeLinear', [e.name(x)], {}, { outputs: [true, true, true] });
    const [last] = e.node('Transpose', [rounded[0]], { perm: { ints: [0, 2, 3, 1] } });
    const [[top, bottom], [left, right]] = pads;
    const around = [0, top, left, 0, 0, bottom, right, 0];
    const padded = around.some((p) => p > 0) ? e.node('Pad', [last, int64(around), rounded[2]])[0] : last;
    const taps = range(kernel[0] * kernel[1]).map((tap) => {
      const from = [Math.floor(tap / kernel[1]) * dilation[0], (tap % kernel[1]) * dilation[1]];
      const to = from.map((start, i) => start + (size[i] - 1) * stride[i] + 1);
      return e.node('Slice', [padded, int64(from), int64(to), int64([1, 2]), int64(stride)])[0];
    });
    const [patches] = taps.length > 1 ? e.node('Concat', taps, { axis: { i: 3 } }) : taps;
    const [rows] = e.node('Reshape', [patches, int64([-1, values.shape[0]])]);
    const y = scaledProduct(e, rounded, rows, e.name(values), e.name(scales));
    const [image] = e.node('Reshape', [y, int64([n, ...size, o])]);
    return e.node('Transpose', [image], { perm: { ints: [0, 3, 1, 2] } });
  },
};

/** (rows - zero) values, times both scales; the engine makes one kernel of it. */
function scaledProduct(
  e: Emitter,
  [, scale, zero]: readonly string[],
  rows: string,
  values: string,
  scales: string,
): string {
  const [sums] = e.node('MatMulInteger', [rows, values, zero]);
  const [floats] = e.node('Cast', [sums], { to: { i: 1 } });
  return e.node('Mul', [floats, e.node('Mul', [scale, scales])[0]])[0];
}
