import { fromBytes, type NdArray } from '../../array/index.js';
import { parseNpz, serializeNpz } from '../npz.js';
import {
  type NamedArrays,
  parseSafetensorsHeader,
  type Safetensors,
  type SafetensorsHeader,
  safetensorsHeaderBytes,
  safetensorsPieces,
} from '../safetensors.js';
import { fileError, readBytes, withFile, writeFileAtomic } from './files.js';

type ReadRange = (begin: number, end: number) => Promise<Uint8Array>;

async function readHeader(read: ReadRange, fileBytes: number): Promise<SafetensorsHeader> {
  const headerBytes = safetensorsHeaderBytes(await read(0, Math.min(8, fileBytes)), fileBytes);
  return parseSafetensorsHeader(await read(0, headerBytes), fileBytes);
}

/** Names, dtypes and shapes of a safetensors file of any size; only its header is read. */
export const readSafetensorsHeader = (path: string): Promise<SafetensorsHeader> => withFile(path, readHeader);

/**
 * Reads a safetensors file of any size, each tensor into memory of its own.
 * @param only the tensors to read; all by default.
 * @throws Error that names the file; nothing is allocated before the header has been checked against the file's length.
 */
export function readSafetensors(path: string, only: (name: string) => boolean = () => true): Promise<Safetensors> {
  return withFile(path, async (read, fileBytes) => {
    const { tensors: entries, metadata } = await readHeader(read, fileBytes);
    const tensors = new Map<string, NdArray>();
    for (const [name, { dtype, shape, begin, end }] of entries)
      if (only(name)) tensors.set(name, fromBytes(await read(begin, end), shape, dtype));
    return { tensors, metadata };
  });
}

/** Writes a safetensors file atomically, without a second copy of the tensors in memory. */
export const writeSafetensors = async (
  path: string,
  tensors: NamedArrays,
  metadata?: Record<string, string>,
): Promise<void> => writeFileAtomic(path, safetensorsPieces(tensors, metadata));

/** Reads a .npz file. @throws Error that names the file and the array at fault. */
export async function readNpz(path: string): Promise<Map<string, NdArray>> {
  const bytes = await readBytes(path);
  try {
    return parseNpz(bytes);
  } catch (cause) {
    throw fileError('read', path, cause);
  }
}

export const writeNpz = (path: string, arrays: NamedArrays, options?: { compress?: boolean }): Promise<void> =>
  writeFileAtomic(path, serializeNpz(arrays, options));
