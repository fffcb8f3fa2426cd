import { describe, expect, it } from 'vitest';
import { ClipImageProcessor } from './clipImageProcessor.js';
import { blankRaster, type Raster } from './raster.js';
import { type ResampleFilter, resizeRaster } from './resample.js';

const gray = (width: number, ...data: number[]): Raster => ({
  width,
  height: data.length / width,
  channels: 1,
  data: Uint8Array.from(data),
});

describe('resizeRaster', () => {
  // Made with Pillow 12.3: Image.resize of these two rows to 3x3, and to 6x1.
  const picture = gray(4, 10, 200, 30, 90, 250, 0, 120, 60);
  it.each<[ResampleFilter, number[], number[]]>([
    ['box', [10, 115, 90, 250, 60, 60, 250, 60, 60], [130, 100, 100, 75, 75, 75]],
    ['bilinear', [67, 115, 72, 121, 88, 75, 175, 60, 78], [130, 115, 96, 79, 75, 75]],
    ['bicubic', [60, 124, 64, 124, 87, 74, 188, 49, 83], [128, 117, 96, 78, 74, 75]],
    ['lanczos', [61, 132, 52, 126, 86, 73, 190, 39, 94], [128, 119, 98, 77, 74, 76]],
  ])('%s is what Pillow makes', (filter, small, flat) => {
    expect([...resizeRaster(picture, [3, 3], filter).data]).toEqual(small);
    expect([...resizeRaster(picture, [1, 6], filter).data]).toEqual(flat);
  });

  it('keeps colours apart, and even areas even', () => {
    const red = { ...blankRaster(5, 7, 3, 0), data: Uint8Array.from({ length: 105 }, (_, i) => (i % 3 ? 0 : 200)) };
    const { width, height, data } = resizeRaster(red, [3, 9], 'lanczos');
    expect([width, height]).toEqual([9, 3]);
    expect(data).toEqual(Uint8Array.from({ length: 81 }, (_, i) => (i % 3 ? 0 : 200)));
    expect(() => resizeRaster(red, [0, 9], 'box')).toThrow('0x9');
  });
});

describe('ClipImageProcessor', () => {
  const plain = { doNormalize: false, doRescale: false, resample: 4 } as const;

  it('scales the shorter side, cuts the middle, and normalises', () => {
    const { shape, data } = new ClipImageProcessor().process([blankRaster(30, 20, 3), blankRaster(224, 500, 1)]);
    expect(shape).toEqual([2, 3, 224, 224]);
    expect(data[0]).toBeCloseTo((1 - 0.48145466) / 0.26862954, 6);
    expect(data[5 * 224 * 224]).toBeCloseTo((1 - 0.40821073) / 0.27577711, 6);
  });

  it('puts small pictures in the middle of black', () => {
    const processor = new ClipImageProcessor({ ...plain, doResize: false, cropSize: { height: 3, width: 4 } });
    const row = [...processor.process([gray(1, 7)]).data].slice(0, 12);
    expect(row).toEqual([0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0]);
  });

  it('reads every way of saying a size, and writes its config', () => {
    const sides = (size: number | object) =>
      ClipImageProcessor.fromJson({ ...plain, size, do_center_crop: false }).process([blankRaster(8, 4, 1)]).shape;
    expect(sides(6)).toEqual([1, 3, 6, 12]);
    expect(sides({ shortest_edge: 5 })).toEqual([1, 3, 5, 10]);
    expect(sides({ height: 5, width: 2 })).toEqual([1, 3, 5, 2]);
    const processor = new ClipImageProcessor({ size: 5 });
    expect(ClipImageProcessor.fromJson(processor.toJson()).config).toEqual(processor.config);
    expect(() => new ClipImageProcessor({ cropSize: 0 })).toThrow(/cropSize/);
    expect(() =>
      new ClipImageProcessor({ doCenterCrop: false }).process([blankRaster(1, 2, 1), blankRaster(2, 1, 1)]),
    ).toThrow('a picture of 448x224 among 224x448');
  });
});
