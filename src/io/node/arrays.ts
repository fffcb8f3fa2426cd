import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { sep } from 'node:path';
import { fromBytes, type NdArray, StoredArray } from '../../array/index.js';
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

/**
 * Opens a safetensors file without reading its tensors: each stays in the file until somebody asks for its `data`.
 * @throws Error that names the file, as {@link readSafetensors}; later, where an array is read after the file changed.
 */
export async function openSafetensors(path: string): Promise<Safetensors> {
  const { tensors: entries, metadata } = await readSafetensorsHeader(path);
  // onnxruntime refuses links that leave the folder, and the hub's cache is made of those.
  const file = await realpath(path);
  const opened = await stat(file);
  const check = () => {
    const now = statSync(file, { throwIfNoEntry: false });
    if (now?.mtimeMs !== opened.mtimeMs || now.size !== opened.size || now.ino !== opened.ino)
      throw fileError('read', path, new Error('the file has changed since it was opened: open it again'));
  };
  const tensors = new Map<string, NdArray>();
  for (const [name, { dtype, shape, begin, end }] of entries) {
    const readInto = (bytes: Uint8Array, from: number) => {
      check();
      readRange(file, begin + from, bytes);
    };
    const read = () => {
      const bytes = new Uint8Array(end - begin);
      readInto(bytes, 0);
      return bytes;
    };
    tensors.set(
      name,
      new StoredArray(dtype, shape, { path: file.replaceAll(sep, '/'), begin, end, dtype, check, read, readInto }),
    );
  }
  return { tensors, metadata };
}

function readRange(path: string, begin: number, bytes: Uint8Array): void {
  const file = openSync(path, 'r');
  try {
    for (let done = 0; done < bytes.length; ) {
      const count = readSync(file, bytes, done, Math.min(bytes.length - done, 2 ** 30), begin + done);
      if (count === 0) throw fileError('read', path, new Error(`the file ends at byte ${begin + done}`));
      done += count;
    }
  } finally {
    closeSync(file);
  }
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
