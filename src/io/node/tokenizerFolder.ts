import { join } from 'node:path';
import { ClipTokenizer, tokenizerFileNames } from '../clipTokenizer.js';
import { T5Tokenizer, t5TokenizerFileNames } from '../t5Tokenizer.js';
import { fileError, readBytes, writeFileAtomic, writeFolderAtomic } from './files.js';

/**
 * Opens a tokenizer folder of transformers' CLIPTokenizer.
 * @throws Error that names the folder or the file that is missing or wrong.
 */
export async function loadTokenizer(folder: string): Promise<ClipTokenizer> {
  const files = await readThere(folder, tokenizerFileNames);
  const texts = Object.entries(files).map(([name, bytes]) => [name, new TextDecoder().decode(bytes)]);
  return naming(folder, () => new ClipTokenizer(Object.fromEntries(texts)));
}

/** The same for T5Tokenizer and T5TokenizerFast. */
export async function loadT5Tokenizer(folder: string): Promise<T5Tokenizer> {
  const files = await readThere(folder, t5TokenizerFileNames);
  return naming(folder, () => new T5Tokenizer(files));
}

/** Those of the files that the folder has. */
async function readThere(folder: string, names: readonly string[]): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {};
  for (const name of names) {
    const bytes = await readBytes(join(folder, name)).catch((error: Error) => {
      if ((error.cause as { code?: unknown })?.code === 'ENOENT') return undefined;
      throw error;
    });
    if (bytes) files[name] = bytes;
  }
  return files;
}

function naming<T>(folder: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw fileError('read', folder, cause);
  }
}

/** Writes a tokenizer folder, replacing an older one as a whole. */
export const saveTokenizer = (folder: string, { files }: ClipTokenizer): Promise<void> =>
  writeFolderAtomic(folder, async (aside) => {
    for (const [name, text] of Object.entries(files))
      await writeFileAtomic(join(aside, name), new TextEncoder().encode(text));
  });
