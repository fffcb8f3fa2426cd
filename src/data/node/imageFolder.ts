import { readdir } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { fillFromRaster, type Raster } from '../../io/index.js';
import { fileError, type ReadImageOptions, readRaster } from '../../io/node/index.js';
import type { Dataset } from '../dataset.js';
import type { Split } from './split.js';

const endings = new Set(['.jpg', '.jpeg', '.png', '.webp', '.gif', '.avif', '.tif', '.tiff']);
const readers = 8;

export interface ImageFolderOptions extends Omit<ReadImageOptions, 'size'> {
  /** Side of the square the pictures are brought to; 64 by default. */
  size?: number;
  /** Leaves out pictures that cannot be read, instead of failing; `skipped` lists them. */
  skipCorrupt?: boolean;
  /** Decoded pictures are kept in memory when all of them fit; 2 GiB by default. */
  cacheBytes?: number;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface ImageFolder extends Dataset {
  /** The files, in the order of the data set. */
  readonly paths: readonly string[];
  readonly skipped: readonly string[];
}

interface Listed {
  readonly path: string;
  readonly label: number;
}

/** Pictures at any depth, relative to the folder, in an order that is the same on every machine. */
export async function listPictures(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true }).catch((cause) => {
    throw fileError('read', folder, cause);
  });
  return names.filter((name) => endings.has(extname(name).toLowerCase()) && !/(^|[\\/])\./.test(name)).sort();
}

async function listClasses(folder: string): Promise<{ files: Listed[]; classNames: string[] }> {
  const names = await listPictures(folder);
  const kinds = `(looked for ${[...endings].join(' ')})`;
  if (names.length === 0) throw new Error(`${folder}: no pictures in this folder ${kinds}`);
  const classOf = (name: string): string => name.slice(0, Math.max(0, name.search(/[\\/]/)));
  const loose = names.filter((name) => classOf(name) === '');
  const list = (classNames: string[], label: (name: string) => number) => ({
    files: names.map((name) => ({ path: join(folder, name), label: label(name) })),
    classNames,
  });
  if (loose.length === names.length) return list([basename(folder)], () => 0);
  if (loose.length > 0)
    throw new Error(`${folder}: ${loose[0]} lies beside the class folders; move it into one of them`);

  const entries = await readdir(folder, { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'));
  const classNames = folders.map((entry) => entry.name).sort();
  const used = new Set(names.map(classOf));
  const empty = classNames.find((name) => !used.has(name));
  if (empty !== undefined) throw new Error(`${join(folder, empty)}: no pictures in this class folder ${kinds}`);
  return list(classNames, (name) => classNames.indexOf(classOf(name)));
}

/** The part of a data set's folder that holds a split: `train` and `test` (or `val`) sub-folders, else all of it for training. */
/** The folder of a split: a sub-folder of its name, or the folder itself. */
export async function splitFolder(folder: string, split: Split): Promise<string> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause) => {
    throw fileError('read', folder, cause);
  });
  const has = (name: string): boolean => entries.some((entry) => entry.name === name && entry.isDirectory());
  if (!has('train')) {
    if (split === 'train') return folder;
    throw new Error(`${folder}: no test pictures; put them into ${folder}/test and the others into ${folder}/train`);
  }
  const name = split === 'train' ? 'train' : ['test', 'val', 'valid', 'validation'].find(has);
  if (!name) throw new Error(`${folder}: has a train folder, but none named test or val`);
  return join(folder, name);
}

/**
 * A folder of pictures of any size and format, its sub-folders being the classes (in alphabetical order); without
 * sub-folders all pictures are of one class. Every picture is decoded once at opening, so that a damaged one is found
 * before training begins.
 * @throws Error when there are no pictures, or some cannot be read (named) and `skipCorrupt` is not set.
 */
export async function openImageFolder(
  folder: string,
  split: Split = 'train',
  options: ImageFolderOptions = {},
): Promise<ImageFolder> {
  const { size = 64, channels = 3, skipCorrupt = false, cacheBytes = 2 ** 31, onProgress, signal } = options;
  const { files, classNames } = await listClasses(await splitFolder(folder, split));
  const pictureBytes = size * size * channels;
  const cached = files.length * pictureBytes <= cacheBytes;
  const rasters: (Raster | undefined)[] = [];
  const failures: (string | undefined)[] = [];
  const decode = (path: string): Promise<Raster> => readRaster(path, { ...options, size, channels });

  let [begun, done] = [0, 0];
  const work = async (): Promise<void> => {
    for (let i = begun++; i < files.length; i = begun++) {
      signal?.throwIfAborted();
      await decode(files[i].path).then(
        (raster) => {
          if (cached) rasters[i] = raster;
        },
        (error: Error) => {
          failures[i] = error.message;
        },
      );
      onProgress?.(++done, files.length);
    }
  };
  await Promise.all(Array.from({ length: readers }, work));

  const skipped = failures.filter((message) => message !== undefined);
  if (skipped.length === files.length || (skipped.length > 0 && !skipCorrupt)) {
    const more = skipped.length > 10 ? `\n  and ${skipped.length - 10} more` : '';
    const list = skipped.slice(0, 10).map((message) => `\n  ${message}`);
    throw new Error(
      `${folder}: ${skipped.length} of ${files.length} pictures cannot be read (--skip-corrupt, or skipCorrupt, leaves them out):${list.join('')}${more}`,
    );
  }
  const good = files.map((file, i) => ({ ...file, raster: rasters[i] })).filter((_, i) => failures[i] === undefined);
  return {
    name: folder,
    length: good.length,
    shape: [channels, size, size],
    classNames,
    paths: good.map(({ path }) => path),
    skipped,
    label: (i) => good[i].label,
    fill(i, out, offset) {
      const { raster, path } = good[i];
      if (raster) return fillFromRaster(raster, out, offset);
      return decode(path).then((decoded) => fillFromRaster(decoded, out, offset));
    },
  };
}
