import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { fileError, withFile } from './files.js';

const SAMPLES = 64;
const SAMPLE_BYTES = 4096;

/**
 * Tells models apart, folders or single files, without reading gigabytes: 16 hexadecimal digits of a hash over the names and sizes of
 * their configs and weights, whole small files, and 64 pieces of large ones.
 * @throws Error that names the folder or file that cannot be read.
 */
export async function fingerprint(source: string): Promise<string> {
  const isFile = (await stat(source).catch(() => undefined))?.isFile();
  const folder = isFile ? dirname(source) : source;
  const paths = isFile ? [basename(source)] : await pathsBelow(folder);
  const hash = createHash('sha256');
  for (const path of paths.filter((name) => /(config\.json|\.safetensors|merges\.txt|vocab\.json)$/.test(name)))
    await withFile(join(folder, path), async (read, bytes) => {
      hash.update(`${path.replaceAll('\\', '/')} ${bytes}\n`);
      const whole = bytes <= SAMPLES * SAMPLE_BYTES;
      const begins = whole ? [0] : Array.from({ length: SAMPLES }, (_, i) => spot(i, bytes));
      for (const begin of begins) hash.update(await read(begin, whole ? bytes : begin + SAMPLE_BYTES));
    });
  return hash.digest('hex').slice(0, 16);
}

/** The first is the header of a weight file. */
const spot = (i: number, bytes: number): number => Math.floor((i * (bytes - SAMPLE_BYTES)) / (SAMPLES - 1));

async function pathsBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((cause) => {
    throw fileError('read', folder, cause);
  });
  return entries.map((entry) => relative(folder, join(entry.parentPath, entry.name))).sort();
}
