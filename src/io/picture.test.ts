import { expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { imageGrid } from './grid.js';
import { fromRaster, toRasters, upscale } from './raster.js';
import { drawText, wrapText } from './text.js';

it('maps [-1, 1] to bytes, clamping and rounding to even, and back', () => {
  const [raster] = toRasters(ndarray([-1, 1, 0, -3, 3, Number.NaN], [1, 2, 3]));
  expect([...raster.data]).toEqual([0, 255, 128, 0, 255, 0]);
  expect([...fromRaster(raster).data].map((x) => Math.round(x * 255))).toEqual([-255, 255, 1, -255, 255, -255]);
});

it('interleaves the planes of colour pictures', () => {
  const images = ndarray([-1, 1, -1, -1, 1, 1], [1, 3, 1, 2]);
  const [raster] = toRasters(images);
  expect([...raster.data]).toEqual([0, 0, 255, 255, 0, 255]);
  expect(fromRaster(raster)).toEqual({ ...images, shape: [3, 1, 2] });
  expect([...upscale(raster, 2).data.subarray(0, 12)]).toEqual([0, 0, 255, 0, 0, 255, 255, 0, 255, 255, 0, 255]);
});

it('lays pictures out in rows', () => {
  const grid = imageGrid(ndarray([-1, 0, -1], [3, 1, 1, 1]), 2, { padding: 1 });
  expect(grid).toMatchObject({ width: 5, height: 5, channels: 1 });
  expect([...grid.data]).toEqual(
    [
      [255, 255, 255, 255, 255],
      [255, 0, 255, 128, 255],
      [255, 255, 255, 255, 255],
      [255, 0, 255, 255, 255],
      [255, 255, 255, 255, 255],
    ].flat(),
  );
});

it('makes room for labels', () => {
  const images = ndarray(new Float32Array(4 * 64), [4, 1, 8, 8]);
  const plain = imageGrid(images, 2, { scale: 3 });
  const labelled = imageGrid(images, 2, { scale: 3, rowLabels: ['1', '2'], columnLabels: ['a very long label', ''] });
  expect([labelled.width - plain.width, labelled.height - plain.height]).toEqual([5 + 4, 4 * 9 - 2 + 3]);
});

it.each([
  [[1, 2, 1, 1], 1],
  [[2, 2], 1],
  [[2, 1, 1, 1], 0],
  [[0, 1, 1, 1], 1],
])('rejects shape %j in %i columns', (shape, columns) => {
  const data = new Float32Array(shape.reduce((a, b) => a * b));
  expect(() => imageGrid(ndarray(data, shape), columns)).toThrow(/imageGrid|picture/);
});

it('draws text', () => {
  const { width, height, data } = drawText('T1');
  const rows = Array.from({ length: height }, (_, y) =>
    Array.from(data.subarray(y * width, (y + 1) * width), (pixel) => (pixel ? '.' : '#')).join(''),
  );
  expect(rows).toEqual([
    '#####...#..',
    '..#....##..',
    '..#.....#..',
    '..#.....#..',
    '..#.....#..',
    '..#.....#..',
    '..#....###.',
  ]);
  expect(drawText('é')).toEqual(drawText('?'));
  expect(wrapText('ankle  boot extraordinary', 10)).toBe('ankle boot\nextraordin');
});
