import { type NdArray, ndarray } from '../array/index.js';

/** An 8-bit picture, gray or RGB, its channels interleaved, rows from the top. */
export interface Raster {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly data: Uint8Array;
}

/**
 * The pictures of a batch.
 * @param images [N, C, H, W] or [C, H, W], float32 in [-1, 1] (clamped), C is 1 (gray) or 3 (RGB).
 * @throws RangeError for another shape.
 */
export function toRasters({ shape, data }: NdArray<'float32'>): Raster[] {
  const [channels, height, width] = shape.slice(-3);
  if (shape.length < 3 || shape.length > 4 || (channels !== 1 && channels !== 3))
    throw new RangeError(`picture: shape [${shape}], expected [N, C, H, W] or [C, H, W] with 1 or 3 channels`);
  const plane = height * width;
  return Array.from({ length: shape.length === 4 ? shape[0] : 1 }, (_, n) => {
    const pixels = new Uint8ClampedArray(plane * channels); // clamps, and rounds to nearest even as diffusers does
    const begin = n * pixels.length;
    for (let i = 0; i < plane; i++)
      for (let c = 0; c < channels; c++) pixels[i * channels + c] = data[begin + c * plane + i] * 127.5 + 127.5;
    return { width, height, channels, data: new Uint8Array(pixels.buffer) };
  });
}

/** Writes a picture as [C, H, W] numbers in [-1, 1]. */
export function fillFromRaster({ data, channels }: Raster, out: Float32Array, offset = 0): void {
  const plane = data.length / channels;
  for (let i = 0; i < plane; i++)
    for (let c = 0; c < channels; c++) out[offset + c * plane + i] = data[i * channels + c] / 127.5 - 1;
}

/** A picture as [C, H, W], float32 in [-1, 1]. */
export function fromRaster(raster: Raster): NdArray<'float32'> {
  const out = new Float32Array(raster.data.length);
  fillFromRaster(raster, out);
  return ndarray(out, [raster.channels, raster.height, raster.width]);
}

/** A picture of one colour. */
export const blankRaster = (width: number, height: number, channels: 1 | 3, value = 255): Raster => ({
  width,
  height,
  channels,
  data: new Uint8Array(width * height * channels).fill(value),
});

/** Copies `source` into `target` with its top left corner at (x, y); it must fit. */
export function paste(source: Raster, target: Raster, x: number, y: number): void {
  if (x < 0 || y < 0 || x + source.width > target.width || y + source.height > target.height)
    throw new RangeError(
      `paste: ${source.width}x${source.height} at (${x}, ${y}) leaves ${target.width}x${target.height}`,
    );
  for (let row = 0; row < source.height; row++)
    for (let column = 0; column < source.width; column++)
      for (let c = 0; c < target.channels; c++) {
        const from = (row * source.width + column) * source.channels + Math.min(c, source.channels - 1);
        target.data[((y + row) * target.width + x + column) * target.channels + c] = source.data[from];
      }
}

/** Enlarges by a whole factor, each pixel becoming a square: how small pictures are shown without blur. */
export function upscale({ width, height, channels, data }: Raster, factor: number): Raster {
  if (!Number.isInteger(factor) || factor < 1) throw new RangeError(`upscale: factor ${factor}, expected 1, 2, 3 ...`);
  const out = blankRaster(width * factor, height * factor, channels);
  for (let y = 0; y < out.height; y++)
    for (let x = 0; x < out.width; x++) {
      const from = (Math.floor(y / factor) * width + Math.floor(x / factor)) * channels;
      for (let c = 0; c < channels; c++) out.data[(y * out.width + x) * channels + c] = data[from + c];
    }
  return out;
}
