import { bytesPerElement, type DType, fromBytes, type NdArray, sizeOf } from '../array/index.js';
import { swapBytes } from './bytes.js';

const dtypes = new Map<number, DType>([
  [0x08, 'uint8'],
  [0x09, 'int8'],
  [0x0b, 'int16'],
  [0x0c, 'int32'],
  [0x0d, 'float32'],
  [0x0e, 'float64'],
]);

const fail = (what: string): never => {
  throw new Error(`idx: ${what}`);
};

/**
 * Reads an IDX file, the format of MNIST: two zero bytes, dtype, rank, the lengths and then the elements, big-endian.
 * Bytes are views of `file`, wider elements copies.
 * @throws Error when the header is malformed or does not describe exactly the file's bytes.
 */
export function parseIdx(file: Uint8Array): NdArray {
  const [zero, zero2, code, rank] = file;
  const dtype = dtypes.get(code);
  if (file.length < 4 || zero !== 0 || zero2 !== 0 || dtype === undefined)
    return fail(`not an IDX file (it begins with ${[...file.subarray(0, 4)].join(' ')})`);
  const begin = 4 + 4 * rank;
  if (file.length < begin) fail(`a header of ${rank} axes takes ${begin} bytes, the file has ${file.length}`);
  const view = new DataView(file.buffer, file.byteOffset);
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  const bytes = sizeOf(shape) * bytesPerElement(dtype);
  if (bytes !== file.length - begin)
    fail(`${dtype} [${shape}] takes ${bytes} bytes, the file has ${file.length - begin} (cut short?)`);
  return fromBytes(swapBytes(file.subarray(begin), bytesPerElement(dtype)), shape, dtype);
}
