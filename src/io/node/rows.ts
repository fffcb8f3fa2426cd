import { type FileHandle, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { bytesPerElement, type DType, fromBytes, type NdArray, sizeOf, toBytes } from '../../array/index.js';
import { serializeNpy } from '../npy.js';
import { fileError, writeFolderAtomic } from './files.js';
import { readJson, writeJson } from './json.js';

const index = z.object({
  arrays: z.record(z.string(), z.object({ dtype: z.string(), shape: z.array(z.number()) })),
  note: z.unknown(),
});

/** Smaller files are read at once. */
const IN_MEMORY = 2 ** 28;

/**
 * Arrays of which a few rows are wanted at a time, in a folder of .npy files: caches larger than memory.
 * Written block by block by {@link writeRows}.
 */
export class RowFolder {
  private constructor(
    /** What was written beside them. */
    readonly note: unknown,
    private readonly arrays: ReadonlyMap<string, Rows>,
  ) {}

  /** @throws Error that names the file at fault. */
  static async open(folder: string): Promise<RowFolder> {
    const { arrays, note } = await readJson(join(folder, 'index.json'), index);
    const opened = new Map<string, Rows>();
    for (const [name, { dtype, shape }] of Object.entries(arrays))
      opened.set(name, await openRows(join(folder, `${name}.npy`), dtype as DType, shape));
    return new RowFolder(note, opened);
  }

  /** The rows [indices.length, ...] of every array. */
  async rows(indices: ArrayLike<number>): Promise<Record<string, NdArray>> {
    const taken: Record<string, NdArray> = {};
    for (const [name, { dtype, shape, read }] of this.arrays) {
      const rowBytes = sizeOf(shape.slice(1)) * bytesPerElement(dtype);
      const bytes = new Uint8Array(indices.length * rowBytes);
      for (let i = 0; i < indices.length; i++) bytes.set(await read(indices[i], rowBytes), i * rowBytes);
      taken[name] = fromBytes(bytes, [indices.length, ...shape.slice(1)], dtype);
    }
    return taken;
  }

  async close(): Promise<void> {
    for (const { close } of this.arrays.values()) await close();
  }
}

interface Rows {
  readonly dtype: DType;
  readonly shape: readonly number[];
  read(row: number, rowBytes: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

async function openRows(path: string, dtype: DType, shape: readonly number[]): Promise<Rows> {
  const handle = await open(path, 'r').catch((cause) => {
    throw fileError('read', path, cause);
  });
  const { size } = await handle.stat();
  const begin = size - sizeOf(shape) * bytesPerElement(dtype);
  if (begin < 0) {
    await handle.close();
    throw fileError('read', path, new Error(`${size} bytes do not hold ${dtype} [${shape}]: remove its folder`));
  }
  if (size <= IN_MEMORY) {
    await handle.close();
    const whole = await readFile(path);
    const read = async (row: number, bytes: number) => whole.subarray(begin + row * bytes, begin + (row + 1) * bytes);
    return { dtype, shape, read, close: async () => {} };
  }
  const read = async (row: number, bytes: number) => {
    const { buffer } = await handle.read(new Uint8Array(bytes), 0, bytes, begin + row * bytes);
    return buffer;
  };
  return { dtype, shape, read, close: () => handle.close() };
}

/**
 * Writes arrays of `count` rows block by block; the folder appears when all is written.
 * @param note JSON to keep beside them.
 * @throws what making the blocks throws, or an Error that names the folder; then nothing is left behind.
 */
export async function writeRows(
  folder: string,
  count: number,
  note: unknown,
  blocks: AsyncIterable<Readonly<Record<string, NdArray>>>,
): Promise<void> {
  const failed: { readonly cause: unknown }[] = [];
  async function* noted() {
    try {
      yield* blocks;
    } catch (cause) {
      failed.push({ cause });
      throw cause;
    }
  }
  await writeFolderAtomic(folder, async (aside) => {
    const arrays = await writeBlocks(aside, count, noted());
    await writeJson(join(aside, 'index.json'), { arrays, note });
  }).catch((error) => {
    throw failed.length > 0 ? failed[0].cause : error;
  });
}

async function writeBlocks(
  folder: string,
  count: number,
  blocks: AsyncIterable<Readonly<Record<string, NdArray>>>,
): Promise<Record<string, { dtype: DType; shape: readonly number[] }>> {
  const files = new Map<string, { handle: FileHandle; dtype: DType; shape: readonly number[] }>();
  try {
    for await (const block of blocks)
      for (const [name, array] of Object.entries(block)) {
        const { dtype } = array;
        const shape = [count, ...array.shape.slice(1)];
        if (!files.has(name)) {
          const handle = await open(join(folder, `${name}.npy`), 'wx');
          files.set(name, { handle, dtype, shape });
          await handle.write(serializeNpy({ dtype, shape, data: array.data.slice(0, 0) } as NdArray));
        }
        await files.get(name)!.handle.writeFile(toBytes(array));
      }
  } finally {
    for (const { handle } of files.values()) await handle.close();
  }
  return Object.fromEntries([...files].map(([name, { dtype, shape }]) => [name, { dtype, shape }]));
}
