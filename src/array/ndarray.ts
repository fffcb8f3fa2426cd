/** Element types of host arrays. float16 and bfloat16 are held as their 16 raw bits, bool as bytes 0 and 1. */
export type DType =
  | 'float32'
  | 'float64'
  | 'float16'
  | 'bfloat16'
  | 'int64'
  | 'int32'
  | 'int16'
  | 'int8'
  | 'uint8'
  | 'bool';

const storage = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const;

export type TypedArray = InstanceType<(typeof storage)[DType]>;
export type DataOf<D extends DType> = InstanceType<(typeof storage)[D]>;
export type Shape = readonly number[];

/** A dense row-major array in host memory: what goes into and comes out of compiled functions. */
export interface NdArray<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: Shape;
  readonly data: DataOf<D>;
}

export const bytesPerElement = (dtype: DType): number => storage[dtype].BYTES_PER_ELEMENT;

/** Number of elements of a shape; 1 for a scalar (`[]`). */
export const sizeOf = (shape: Shape): number => shape.reduce((n, d) => n * d, 1);

/**
 * Wraps typed data (not copied) or numbers as an array.
 * @param shape defaults to one axis; its product must be the number of elements.
 * @throws RangeError when the shape does not hold the data, TypeError when the storage does not fit the dtype.
 */
export function ndarray<D extends DType = 'float32'>(
  data: DataOf<D> | readonly number[],
  shape: Shape = [data.length],
  dtype: D = 'float32' as D,
): NdArray<D> {
  if (sizeOf(shape) !== data.length)
    throw new RangeError(`ndarray: shape [${shape}] holds ${sizeOf(shape)} elements, the data has ${data.length}`);
  const Store = storage[dtype];
  if (Array.isArray(data)) {
    const numbers = data as readonly number[];
    const typed =
      dtype === 'int64' ? BigInt64Array.from(numbers, (x) => BigInt(x)) : (Store as typeof Float32Array).from(numbers);
    return { dtype, shape, data: typed as DataOf<D> };
  }
  if (!(data instanceof Store)) throw new TypeError(`ndarray: ${dtype} data must be a ${Store.name}`);
  return { dtype, shape, data: data as DataOf<D> };
}

/** A fresh array of zeros. */
export function zeros<D extends DType = 'float32'>(shape: Shape, dtype: D = 'float32' as D): NdArray<D> {
  return { dtype, shape, data: new storage[dtype](sizeOf(shape)) as DataOf<D> };
}

/** Views raw bytes as elements of `dtype`, copying only when the bytes are not aligned for it. */
export function fromBytes<D extends DType>(bytes: Uint8Array, shape: Shape, dtype: D): NdArray<D> {
  const Store = storage[dtype];
  const length = bytes.byteLength / Store.BYTES_PER_ELEMENT;
  const aligned = bytes.byteOffset % Store.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return ndarray<D>(new Store(aligned.buffer as ArrayBuffer, aligned.byteOffset, length) as DataOf<D>, shape, dtype);
}

/** The raw little-endian bytes of an array, as a view. */
export const toBytes = (array: NdArray): Uint8Array =>
  new Uint8Array(array.data.buffer, array.data.byteOffset, array.data.byteLength);
