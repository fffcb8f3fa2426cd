import type { NdArray } from '../array/index.js';
import { blankRaster, paste, type Raster, toRasters, upscale } from './raster.js';
import { drawText, letterPitch, wrapText } from './text.js';

export interface GridOptions {
  /** Pixels between pictures, and around them; 2 by default. */
  padding?: number;
  /** Enlarges every picture by a whole factor. */
  scale?: number;
  /** Text beside the rows and above the columns. */
  rowLabels?: readonly string[];
  columnLabels?: readonly string[];
}

/**
 * Lays pictures out row by row on white.
 * @param images [N, C, H, W], float32 in [-1, 1] (clamped), C is 1 or 3.
 * @param columns pictures in a row.
 * @returns gray when the pictures are, else RGB.
 */
export function imageGrid(images: NdArray<'float32'>, columns: number, options: GridOptions = {}): Raster {
  const { padding = 2, scale = 1, rowLabels = [], columnLabels = [] } = options;
  if (!Number.isInteger(columns) || columns < 1)
    throw new RangeError(`imageGrid: ${columns} columns, expected 1, 2 ...`);
  const pictures = toRasters(images).map((picture) => upscale(picture, scale));
  if (pictures.length === 0) throw new RangeError('imageGrid: no pictures');
  const [{ width, height, channels }] = pictures;
  const stepX = width + padding;
  const stepY = height + padding;
  const rowTexts = rowLabels.map((label) => drawText(wrapText(label, 16)));
  const columnTexts = columnLabels.map((label) => drawText(wrapText(label, Math.floor(stepX / letterPitch))));
  const left = padding + Math.max(0, ...rowTexts.map((text) => text.width + 4));
  const top = padding + Math.max(0, ...columnTexts.map((text) => text.height + 3));
  const rows = Math.ceil(pictures.length / columns);

  const grid = blankRaster(left + columns * stepX, top + rows * stepY, channels);
  for (const [i, picture] of pictures.entries())
    paste(picture, grid, left + (i % columns) * stepX, top + Math.floor(i / columns) * stepY);
  for (const [row, text] of rowTexts.slice(0, rows).entries())
    paste(
      clip(text, height),
      grid,
      left - 4 - text.width,
      top + row * stepY + Math.max(0, (height - text.height) >> 1),
    );
  for (const [column, text] of columnTexts.slice(0, columns).entries())
    paste(text, grid, left + column * stepX + Math.max(0, (width - text.width) >> 1), top - 3 - text.height);
  return grid;
}

/** The uppermost rows of a picture. */
const clip = (picture: Raster, height: number): Raster =>
  picture.height <= height
    ? picture
    : { ...picture, height, data: picture.data.subarray(0, height * picture.width * picture.channels) };
