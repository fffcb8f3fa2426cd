import { type DataOf, type NdArray, ndarray } from './ndarray.js';

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** bfloat16 bits of a number, rounded to nearest even as PyTorch does. */
export function toBfloat16(x: number): number {
  f32[0] = x;
  const bits = u32[0];
  if (Number.isNaN(x)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBfloat16(bits: number): number {
  u32[0] = bits << 16;
  return f32[0];
}

/** IEEE half-precision bits of a number, rounded to nearest even. */
export function toFloat16(x: number): number {
  f32[0] = x;
  const bits = u32[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // rounds to infinity
  if (magnitude < 0x38800000) {
    // A subnormal half counts units of 2^-24; scaling by a power of two is exact.
    const units = Math.abs(f32[0]) * 0x1000000;
    const floor = Math.floor(units);
    const rest = units - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && (floor & 1) === 1) ? floor + 1 : floor);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded >>> 13) - 0x1c000);
}

export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The number of every bit pattern, once there is something to convert: a tenth of the time of working each one out. */
let halves: Float32Array | undefined;

/** Converts any floating array to float32 (returned as it is when it already is). */
export function toFloat32(array: NdArray): NdArray<'float32'> {
  if (array.dtype === 'float32') return array as NdArray<'float32'>;
  const source = array.data as ArrayLike<number | bigint>;
  const data = new Float32Array(source.length);
  if (array.dtype === 'float16') {
    halves ??= Float32Array.from({ length: 2 ** 16 }, (_, bits) => fromFloat16(bits));
    for (let i = 0; i < data.length; i++) data[i] = halves[source[i] as number];
    return ndarray(data, array.shape, 'float32');
  }
  const decode = array.dtype === 'bfloat16' ? fromBfloat16 : Number;
  for (let i = 0; i < data.length; i++) data[i] = decode(source[i] as number);
  return ndarray(data, array.shape, 'float32');
}

/** Rounds a float32 array to a 16-bit format, for files half the size. */
export function toHalf<D extends 'float16' | 'bfloat16'>(array: NdArray<'float32'>, dtype: D): NdArray<D> {
  const encode = dtype === 'float16' ? toFloat16 : toBfloat16;
  const source = array.data;
  const bits = new Uint16Array(source.length); // a loop: TypedArray.from takes fifty times as long
  for (let i = 0; i < bits.length; i++) bits[i] = encode(source[i]);
  return ndarray<D>(bits as DataOf<D>, array.shape, dtype);
}
