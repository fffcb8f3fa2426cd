import { bytesPerElement, type DType, fromBytes, type NdArray, ndarray, sizeOf, toBytes } from '../array/index.js';
import { swapBytes } from './bytes.js';

/** NumPy's names of the dtypes; bfloat16 is not among them. */
const descriptions: Partial<Record<DType, string>> = {
  float32: '<f4',
  float64: '<f8',
  float16: '<f2',
  int64: '<i8',
  int32: '<i4',
  int16: '<i2',
  int8: '|i1',
  uint8: '|u1',
  bool: '|b1',
};
const dtypes = new Map(Object.entries(descriptions).map(([dtype, name]) => [name.slice(1), dtype as DType]));

const magic = '\u0093NUMPY';
const maxHeaderBytes = 0xffff;

const fail = (what: string): never => {
  throw new Error(`npy: ${what}`);
};

function parseHeader(header: string): { dtype: DType; swapped: boolean; fortran: boolean; shape: number[] } {
  const field = (name: string, value: RegExp): string => {
    const found = new RegExp(`'${name}':\\s*(${value.source})\\s*[,}]`).exec(header);
    return found?.[1] ?? fail(`no readable '${name}' in the header ${JSON.stringify(header.slice(0, 200).trim())}`);
  };
  const description = field('descr', /'[^']*'/).slice(1, -1);
  const dtype = dtypes.get(description.slice(1));
  if (dtype === undefined || !'<>|='.includes(description[0]))
    return fail(`dtype '${description}' is not supported, expected one of ${Object.values(descriptions).join(' ')}`);
  const shape = (field('shape', /\([0-9,\s]*\)/).match(/\d+/g) ?? []).map(Number);
  if (!shape.every(Number.isSafeInteger)) fail(`the shape [${shape}] is too large`);
  return { dtype, swapped: description[0] === '>', fortran: field('fortran_order', /True|False/) === 'True', shape };
}

/** Column-major elements put in row-major order. */
function fromFortran<D extends DType>({ data, shape, dtype }: NdArray<D>): NdArray<D> {
  const out = data.slice() as typeof data;
  const index = new Array<number>(shape.length).fill(0);
  for (let i = 0; i < data.length; i++) {
    let at = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) at = at * shape[axis] + index[axis];
    out[i] = data[at];
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
  return ndarray<D>(out, shape, dtype);
}

/**
 * Reads a NumPy .npy file (format 1 to 3, either byte order, either memory order); a view of `bytes` where it can be.
 * @throws Error when the header is malformed, the dtype is not one of ours, or the data is too short or too long.
 */
export function parseNpy(bytes: Uint8Array): NdArray {
  if (String.fromCharCode(...bytes.subarray(0, 6)) !== magic || bytes.length < 12) fail('not a .npy file');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [version] = bytes.subarray(6, 7);
  if (version < 1 || version > 3) fail(`format version ${version} is not supported, expected 1 to 3`);
  const start = version === 1 ? 10 : 12;
  const headerBytes = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (headerBytes > maxHeaderBytes) fail(`the header claims ${headerBytes} bytes, more than ${maxHeaderBytes}`);
  const begin = start + headerBytes;
  if (begin > bytes.length) fail(`the header ends at byte ${begin}, the file has ${bytes.length} (cut short?)`);
  const { dtype, swapped, fortran, shape } = parseHeader(new TextDecoder().decode(bytes.subarray(start, begin)));

  const width = bytesPerElement(dtype);
  const expected = sizeOf(shape) * width;
  if (expected !== bytes.length - begin)
    fail(`${dtype} [${shape}] takes ${expected} bytes, the file has ${bytes.length - begin}`);
  const content = bytes.subarray(begin);
  const array = fromBytes(swapped ? swapBytes(content, width) : content, shape, dtype);
  return fortran ? fromFortran(array) : array;
}

/**
 * Writes a .npy file, format 1, row-major.
 * @throws Error for bfloat16, which NumPy lacks.
 */
export function serializeNpy(array: NdArray): Uint8Array {
  const description = descriptions[array.dtype] ?? fail(`NumPy has no ${array.dtype}; convert to float32 first`);
  const shape = `(${array.shape.join(', ')}${array.shape.length === 1 ? ',' : ''})`;
  const header = `{'descr': '${description}', 'fortran_order': False, 'shape': ${shape}, }`;
  const headerBytes = Math.ceil((10 + header.length + 1) / 64) * 64 - 10; // the data begins at a multiple of 64
  const bytes = new Uint8Array(10 + headerBytes + array.data.byteLength);
  const text = `${magic}\u0001\0${String.fromCharCode(headerBytes & 255, headerBytes >> 8)}${header.padEnd(headerBytes - 1)}\n`;
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  bytes.set(toBytes(array), 10 + headerBytes);
  return bytes;
}
