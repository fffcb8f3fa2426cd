import { join } from 'node:path';
import { ClipTokenizer, tokenizerFileNames } from '../clipTokenizer.js';
import { fileError, readBytes, writeFileAtomic, writeFolderAtomic } from './files.js';

/**
 * Opens a tokenizer folder of transformers' CLIPTokenizer.
 * @throws Error that names the folder or the file that is missing or wrong.
 */
export async function loadTokenizer(folder: string): Promise<ClipTokenizer> {
  const files: Record<string, string> = {};
  for (const name of tokenizerFileNames) {
    const bytes = await readBytes(join(folder, name)).catch((error: Error) => {
      if ((error.cause as { code?: unknown })?.code === 'ENOENT') return undefined;
      throw error;
    });
    if (bytes) files[name] = new TextDecoder().decode(bytes);
  }
  try {
    return new ClipTokenizer(files);
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
