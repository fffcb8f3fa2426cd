import { createHash } from 'node:crypto';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type NdArray, ndarray } from '../../array/index.js';
import { edgeMap } from '../../data/index.js';
import type { CaptionedPicture } from '../../data/node/index.js';
import { fromRaster, type Raster } from '../../io/index.js';
import { pathExists, RowFolder, readRaster, writeRows } from '../../io/node/index.js';
import type { AutoencoderKL } from '../../models/index.js';
import { type CompileOptions, compile, type Tensor } from '../../tensor/index.js';

export interface CacheOptions {
  readonly compile?: CompileOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

const pictureNote = z.object({ kept: z.array(z.number()), skipped: z.array(z.string()) });

export interface CachedPictures {
  /**
   * A row for each kept picture: `moments` [2 C, h, w], for a ControlNet `hint` uint8 [3, size, size], and for SDXL `timeIds`
   * [6], the height and width that the picture had, the top and left of what is kept of it, and the size twice.
   */
  readonly rows: RowFolder;
  readonly pictures: readonly CaptionedPicture[];
  readonly skipped: readonly string[];
}

export interface PictureCacheOptions extends CacheOptions {
  readonly vae: AutoencoderKL;
  /** Tells autoencoders apart. */
  readonly vaeKey: string;
  readonly size: number;
  readonly hint?: 'conditioning' | 'edges';
  readonly timeIds?: boolean;
  readonly skipCorrupt: boolean;
}

const readers = 8;

/**
 * What an autoencoder's encoder says of pictures, computed once and kept in `folder`/latents-*.
 * @throws Error that names pictures that cannot be read, unless `skipCorrupt`; AbortError.
 */
export async function cachedPictures(
  folder: string,
  pictures: readonly CaptionedPicture[],
  options: PictureCacheOptions,
): Promise<CachedPictures> {
  const { vaeKey, size, hint = 'none', timeIds = false, skipCorrupt } = options;
  const bare = hint === 'conditioning' && pictures.find((picture) => picture.hint === undefined);
  if (bare)
    throw new Error(
      `${bare.path}: no 'conditioning' in metadata.jsonl: name the hint's file there, or take --hint edges`,
    );
  const files = await Promise.all(
    pictures.map(async ({ path, hint }) => [await fileKey(path), hint && (await fileKey(hint))]),
  );
  const place = await placeOf(folder, 'latents', [vaeKey, size, hint, files, ...(timeIds ? ['timeIds'] : [])]);
  if (!(await pathExists(place))) {
    const kept: number[] = [];
    const looks = await inspected(pictures, options);
    for (const [i, { reason }] of looks.entries()) if (reason === undefined) kept.push(i);
    const reasons = looks.flatMap(({ reason }) => reason ?? []);
    if (reasons.length > 0 && (!skipCorrupt || kept.length === 0))
      throw new Error(
        `${reasons.length} of ${pictures.length} pictures cannot be read (--skip-corrupt, or skipCorrupt, leaves them out):${reasons
          .slice(0, 10)
          .map((reason) => `\n  ${reason}`)
          .join('')}`,
      );
    const good = kept.map((i) => ({ ...pictures[i], ...looks[i] }));
    await writeRows(place, good.length, { kept, skipped: reasons }, pictureBlocks(good, options));
  }
  const rows = await RowFolder.open(place);
  const { kept, skipped } = pictureNote.parse(rows.note);
  return { rows, pictures: kept.map((i) => pictures[i]), skipped };
}

/** A picture before it is scaled, or why there is none. */
interface Look {
  readonly height: number;
  readonly width: number;
  readonly reason?: string;
}

async function inspected(pictures: readonly CaptionedPicture[], { signal }: CacheOptions): Promise<Look[]> {
  const looks: Look[] = [];
  let next = 0;
  const look = async ({ path, hint }: CaptionedPicture): Promise<Look> => {
    const { height, width } = await readRaster(path);
    if (hint !== undefined) await readRaster(hint);
    return { height, width };
  };
  const work = async (): Promise<void> => {
    for (let i = next++; i < pictures.length; i = next++) {
      signal?.throwIfAborted();
      looks[i] = await look(pictures[i]).catch((error: Error) => ({ height: 0, width: 0, reason: error.message }));
    }
  };
  await Promise.all(Array.from({ length: readers }, work));
  return looks;
}

/** What SDXL is told of a picture that was scaled to its shorter side and cropped to the middle (Podell et al. 2023). */
function timeIdsOf({ height, width }: Look, size: number): NdArray<'float32'> {
  const scale = size / Math.min(height, width);
  const cut = (side: number) => Math.max(0, Math.round((Math.floor(side * scale) - size) / 2));
  return ndarray([height, width, cut(height), cut(width), size, size], [6]);
}

async function* pictureBlocks(
  pictures: readonly (CaptionedPicture & Look)[],
  { vae, size, hint, timeIds, compile: where, signal, onProgress }: PictureCacheOptions,
): AsyncGenerator<Record<string, NdArray>, void, undefined> {
  const encode = compile((x: Tensor) => ({ moments: vae.encode(x).moments }), { freeze: true, ...where });
  try {
    for (let begin = 0; begin < pictures.length; begin += readers) {
      signal?.throwIfAborted();
      const block = pictures.slice(begin, begin + readers);
      const rasters = await Promise.all(block.map(({ path }) => readRaster(path, { size })));
      const { moments } = await encode(stacked(rasters.map(fromRaster)));
      const hints = hint && (await Promise.all(block.map((picture, i) => hintOf(picture, rasters[i], hint))));
      const ids = timeIds && block.map((picture) => timeIdsOf(picture, size));
      yield { moments, ...(hints && { hint: stacked(hints.map(planes)) }), ...(ids && { timeIds: stacked(ids) }) };
      onProgress?.(begin + block.length, pictures.length);
    }
  } finally {
    await encode.release();
  }
}

const hintOf = async ({ hint }: CaptionedPicture, raster: Raster, kind: 'conditioning' | 'edges'): Promise<Raster> =>
  kind === 'edges' ? edgeMap(raster) : readRaster(hint!, { size: [raster.height, raster.width] });

/** Bytes [3, H, W]. */
function planes({ data, width, height }: Raster): NdArray<'uint8'> {
  const plane = width * height;
  const out = Uint8Array.from({ length: 3 * plane }, (_, i) => data[(i % plane) * 3 + Math.floor(i / plane)]);
  return ndarray(out, [3, height, width], 'uint8');
}

function stacked<D extends 'float32' | 'uint8'>(arrays: readonly NdArray<D>[]): NdArray<D> {
  const [{ shape, dtype, data }] = arrays;
  const Store = data.constructor as new (length: number) => Float32Array;
  const out = new Store(arrays.length * data.length);
  for (const [i, array] of arrays.entries()) out.set(array.data as unknown as Float32Array, i * data.length);
  return { dtype, shape: [arrays.length, ...shape], data: out as unknown as typeof data };
}

export interface TextCacheOptions extends CacheOptions {
  /** Tells text encoders apart. */
  readonly key: string;
  encode(texts: readonly string[]): Promise<Readonly<Record<string, NdArray>>>;
}

const TEXTS = 32;

/** What a model is told of each of these texts, in `folder`/texts-*: computed once. */
export async function cachedTexts(
  folder: string,
  texts: readonly string[],
  { key, encode, signal, onProgress }: TextCacheOptions,
): Promise<RowFolder> {
  const place = await placeOf(folder, 'texts', [key, texts]);
  async function* blocks() {
    for (let begin = 0; begin < texts.length; begin += TEXTS) {
      signal?.throwIfAborted();
      yield await encode(texts.slice(begin, begin + TEXTS));
      onProgress?.(Math.min(texts.length, begin + TEXTS), texts.length);
    }
  }
  if (!(await pathExists(place))) await writeRows(place, texts.length, null, blocks());
  return RowFolder.open(place);
}

async function fileKey(path: string): Promise<readonly unknown[]> {
  const { size, mtimeMs } = await stat(path);
  return [path, size, mtimeMs];
}

/** Where a cache of this content goes; those of other content are removed. */
async function placeOf(folder: string, kind: string, content: unknown): Promise<string> {
  const name = `${kind}-${createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16)}`;
  for (const other of await readdir(folder).catch(() => []))
    if (other.startsWith(`${kind}-`) && other !== name) await rm(join(folder, other), { recursive: true, force: true });
  return join(folder, name);
}
