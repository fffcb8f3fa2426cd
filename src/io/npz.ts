import { zipSync } from 'fflate';
import type { NdArray } from '../array/index.js';
import { parseNpy, serializeNpy } from './npy.js';
import { type NamedArrays, namedArrays } from './safetensors.js';
import { readZip } from './zip.js';

/**
 * Reads what `numpy.savez` and `savez_compressed` write.
 * @throws Error that names the array which is damaged or of a dtype that is not supported.
 */
export function parseNpz(bytes: Uint8Array): Map<string, NdArray> {
  const arrays = new Map<string, NdArray>();
  for (const [file, content] of readZip(bytes)) {
    if (!file.endsWith('.npy')) throw new Error(`npz: '${file}' is not a .npy file`);
    try {
      arrays.set(file.slice(0, -4), parseNpy(content));
    } catch (cause) {
      throw new Error(`npz: '${file}': ${(cause as Error).message}`, { cause });
    }
  }
  return arrays;
}

/** Writes arrays as `numpy.savez` does, or, with `compress`, `savez_compressed`. The same arrays give the same bytes. */
export function serializeNpz(arrays: NamedArrays, { compress = false } = {}): Uint8Array {
  const files = namedArrays(arrays).map(([name, array]) => [`${name}.npy`, serializeNpy(array)]);
  return zipSync(Object.fromEntries(files), { level: compress ? 6 : 0, mtime: new Date(1980, 0, 1) });
}
