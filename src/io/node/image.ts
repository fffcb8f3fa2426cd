import { extname } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import type { NdArray } from '../../array/index.js';
import { addPngText } from '../png.js';
import { fromRaster, type Raster } from '../raster.js';
import { fileError, readBytes, writeFileAtomic } from './files.js';

const fromPixels = ({ data, width, height, channels }: Raster): Sharp =>
  sharp(data, { raw: { width, height, channels } });

/**
 * Writes a PNG file atomically.
 * @param text kept inside the file (see `readPngText`), such as the settings that made the picture.
 */
export async function savePng(
  path: string,
  raster: Raster,
  text: Readonly<Record<string, string>> = {},
): Promise<void> {
  const png = await fromPixels(raster).png({ compressionLevel: 9 }).toBuffer();
  await writeFileAtomic(path, addPngText(png, text));
}

/**
 * Writes an endless animation, GIF (at most 256 colours) or lossless WebP by the path's ending, atomically.
 * @param frames pictures of one size.
 * @param delayMs how long each is shown; one number for all, or one for each.
 */
export async function saveAnimation(
  path: string,
  frames: readonly Raster[],
  delayMs: number | number[],
): Promise<void> {
  const [first] = frames;
  if (!first) throw new RangeError('saveAnimation: no frames');
  const odd = frames.find((frame) => frame.width !== first.width || frame.height !== first.height);
  if (odd)
    throw new RangeError(`saveAnimation: a frame of ${odd.width}x${odd.height} among ${first.width}x${first.height}`);
  const delay = Array.isArray(delayMs) ? delayMs : frames.map(() => delayMs);
  const strip = sharp(Buffer.concat(frames.map((frame) => frame.data)), {
    raw: { ...first, height: first.height * frames.length, pageHeight: first.height },
  });
  const formats: Record<string, () => Sharp> = {
    '.gif': () => strip.gif({ delay, loop: 0, dither: 0 }),
    '.webp': () => strip.webp({ delay, loop: 0, lossless: true }),
  };
  const encode = formats[extname(path).toLowerCase()];
  if (!encode) throw new Error(`saveAnimation: ${path} must end in ${Object.keys(formats).join(' or ')}`);
  await writeFileAtomic(path, await encode().toBuffer());
}

export interface ReadImageOptions {
  /** Side of the square (or [height, width]) to which the picture is brought; its own size by default. */
  size?: number | readonly [height: number, width: number];
  /** `cover` (default) cuts off what sticks out, centred; `contain` adds `background`; `fill` distorts. */
  resize?: 'cover' | 'contain' | 'fill';
  /** 1 (gray) or 3 (RGB, default). */
  channels?: 1 | 3;
  /** What shows through transparent pixels; white by default. */
  background?: string;
  /** Larger pictures are refused; 2^28 pixels by default. */
  maxPixels?: number;
}

/**
 * Decodes a JPEG, PNG, WebP, GIF, AVIF, TIFF or SVG picture, turned upright by its EXIF orientation.
 * @throws Error that names the file when it is missing, damaged, cut short, too large or no picture.
 */
export async function readRaster(source: string | Uint8Array, options: ReadImageOptions = {}): Promise<Raster> {
  const { size, resize = 'cover', channels = 3, background = 'white', maxPixels = 2 ** 28 } = options;
  const bytes = typeof source === 'string' ? await readBytes(source) : source;
  try {
    let picture = sharp(bytes, { limitInputPixels: maxPixels, failOn: 'error' }).autoOrient();
    if (size !== undefined) {
      const [height, width] = typeof size === 'number' ? [size, size] : size;
      picture = picture.resize(width, height, { fit: resize, background });
    }
    picture = picture.flatten({ background }).toColourspace(channels === 1 ? 'b-w' : 'srgb');
    const { data, info } = await picture.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
    if (info.channels !== channels) throw new Error(`decoded to ${info.channels} channels, expected ${channels}`);
    return { width: info.width, height: info.height, channels, data };
  } catch (cause) {
    const name = typeof source === 'string' ? source : 'picture';
    throw fileError('read', name, new Error(`not a readable picture (${(cause as Error).message})`, { cause }));
  }
}

/** A picture as [C, H, W], float32 in [-1, 1]. See {@link readRaster}. */
export async function readImage(source: string | Uint8Array, options?: ReadImageOptions): Promise<NdArray<'float32'>> {
  return fromRaster(await readRaster(source, options));
}
