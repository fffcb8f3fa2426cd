import { z } from 'zod';
import { type NdArray, ndarray } from '../array/index.js';
import { camelCase, parseFields, snakeCase } from './config.js';
import type { Raster } from './raster.js';
import { type ResampleFilter, resizeRaster } from './resample.js';

const side = z.number().int().positive();
const square = z.strictObject({ height: side, width: side });
const threeOf = (values: [number, number, number]) => z.array(z.number()).length(3).default(values);

/** The fields of transformers' CLIPImageProcessor, in camelCase; a number is a side of both axes. */
const clipImageConfig = z.object({
  doResize: z.boolean().default(true),
  size: z.union([side, z.strictObject({ shortest_edge: side }), square]).default({ shortest_edge: 224 }),
  /** Pillow's number of the filter: bicubic. */
  resample: z.union([z.literal(1), z.literal(2), z.literal(3), z.literal(4)]).default(3),
  doCenterCrop: z.boolean().default(true),
  cropSize: z.union([side, square]).default(224),
  doRescale: z.boolean().default(true),
  rescaleFactor: z.number().default(1 / 255),
  doNormalize: z.boolean().default(true),
  imageMean: threeOf([0.48145466, 0.4578275, 0.40821073]),
  imageStd: threeOf([0.26862954, 0.26130258, 0.27577711]),
});
export type ClipImageOptions = z.input<typeof clipImageConfig>;

const filterNumbers: Readonly<Record<number, ResampleFilter>> = { 1: 'lanczos', 2: 'bilinear', 3: 'bicubic', 4: 'box' };

/** Brings pictures to the form CLIP's image tower takes, as transformers' CLIPImageProcessor does. */
export class ClipImageProcessor {
  readonly config: z.output<typeof clipImageConfig>;

  /** @throws TypeError that names each wrong field. */
  constructor(options: ClipImageOptions = {}) {
    this.config = parseFields('CLIPImageProcessor', clipImageConfig, options);
  }

  /** From the content of a preprocessor_config.json. @throws as the constructor. */
  static fromJson(json: object): ClipImageProcessor {
    return new ClipImageProcessor(Object.fromEntries(Object.entries(json).map(([k, v]) => [camelCase(k), v])));
  }

  /** The content of preprocessor_config.json. */
  toJson(): Record<string, unknown> {
    const fields = Object.entries(this.config).map(([name, value]) => [snakeCase(name), value]);
    return { image_processor_type: 'CLIPImageProcessor', ...Object.fromEntries(fields) };
  }

  /**
   * @param rasters pictures of any sizes that come out alike; gray ones count as RGB.
   * @returns float32 [N, 3, height, width].
   */
  process(rasters: readonly Raster[]): NdArray<'float32'> {
    const prepared = rasters.map((raster) => this.cropped(this.scaled(raster)));
    const { height, width } = prepared[0] ?? { height: 0, width: 0 };
    const odd = prepared.find((raster) => raster.height !== height || raster.width !== width);
    if (odd)
      throw new RangeError(`CLIPImageProcessor: a picture of ${odd.width}x${odd.height} among ${width}x${height}`);
    const plane = height * width;
    const out = new Float32Array(prepared.length * 3 * plane);
    const { doRescale, rescaleFactor, doNormalize, imageMean, imageStd } = this.config;
    for (const [n, { data, channels }] of prepared.entries())
      for (let c = 0; c < 3; c++)
        for (let i = 0; i < plane; i++) {
          const value = data[i * channels + Math.min(c, channels - 1)] * (doRescale ? rescaleFactor : 1);
          out[(n * 3 + c) * plane + i] = doNormalize ? (value - imageMean[c]) / imageStd[c] : value;
        }
    return ndarray(out, [prepared.length, 3, height, width]);
  }

  private scaled(raster: Raster): Raster {
    const { doResize, size, resample } = this.config;
    if (!doResize) return raster;
    return resizeRaster(raster, sizeFor(raster, size), filterNumbers[resample]);
  }

  /** The middle; black where it is larger than the picture. */
  private cropped(raster: Raster): Raster {
    const { doCenterCrop, cropSize } = this.config;
    if (!doCenterCrop) return raster;
    const { height, width } = typeof cropSize === 'number' ? { height: cropSize, width: cropSize } : cropSize;
    const { channels } = raster;
    const [top, left] = [(raster.height - height) / 2, (raster.width - width) / 2].map(Math.floor);
    const data = new Uint8Array(height * width * channels);
    for (let y = Math.max(0, -top); y < Math.min(height, raster.height - top); y++) {
      const x = Math.max(0, -left);
      const end = Math.min(width, raster.width - left);
      const from = ((y + top) * raster.width + x + left) * channels;
      data.set(raster.data.subarray(from, from + (end - x) * channels), (y * width + x) * channels);
    }
    return { width, height, channels, data };
  }
}

function sizeFor({ height, width }: Raster, size: z.output<typeof clipImageConfig>['size']): [number, number] {
  if (typeof size === 'object' && 'height' in size) return [size.height, size.width];
  const edge = typeof size === 'number' ? size : size.shortest_edge;
  const long = Math.trunc((edge * Math.max(height, width)) / Math.min(height, width));
  return height < width ? [edge, long] : [long, edge];
}
