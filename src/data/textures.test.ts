import { expect, test } from 'vitest';
import { readBatch } from './batches.js';
import { textures } from './textures.js';

test('a texture depends on the seed and its place alone', async () => {
  const read = async (i: number, seed: number, length = 30) =>
    (await readBatch(textures({ size: 8, seed, length }), Int32Array.of(i))).images.data;
  expect(await read(7, 1)).toEqual(await read(7, 1, 9));
  expect(await read(7, 1)).not.toEqual(await read(7, 2));
  expect(await read(7, 1)).not.toEqual(await read(8, 1));
});

test('every family fills the range it says and is not of one colour', async () => {
  const set = textures({ size: 12, length: 46, seed: 3 });
  expect(set.classNames).toHaveLength(23);
  for (let i = 0; i < set.length; i++) {
    const { images, labels } = await readBatch(set, Int32Array.of(i));
    const values = [...images.data];
    expect(labels.data[0]).toBe(i % 23);
    expect(Math.min(...values)).toBeGreaterThanOrEqual(-1);
    expect(Math.max(...values)).toBeLessThanOrEqual(1);
    expect(Math.max(...values) - Math.min(...values)).toBeGreaterThan(0.05);
  }
});

test('sizes are checked', () => {
  expect(() => textures({ size: 0 })).toThrow('textures: size 0, expected 1, 2 ...');
});
