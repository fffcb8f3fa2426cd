import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readPngText } from '../png.js';
import { blankRaster, type Raster } from '../raster.js';
import { readImage, readRaster, saveAnimation, savePng } from './image.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const red: Raster = { width: 2, height: 1, channels: 3, data: Uint8Array.of(255, 0, 0, 10, 20, 30) };

it('keeps pixels and text through a PNG file', async () => {
  const path = join(folder, 'a.png');
  await savePng(path, red, { prompt: 'a façade', seed: '0' });
  expect(await readRaster(path)).toEqual({ ...red, data: Buffer.from(red.data) });
  expect(readPngText(await readFile(path))).toEqual({ prompt: 'a façade', seed: '0' });
  const gray = { ...blankRaster(3, 2, 1, 7) };
  await savePng(path, gray);
  expect([...(await readRaster(path, { channels: 1 })).data]).toEqual([...gray.data]);
  expect((await readImage(path)).shape).toEqual([3, 2, 3]);
});

it('writes animations', async () => {
  const frames = [0, 255].map((value) => blankRaster(4, 3, 1, value));
  for (const name of ['a.gif', 'a.webp']) {
    await saveAnimation(join(folder, name), frames, 100);
    const { pages, delay, loop } = await sharp(join(folder, name), { animated: true }).metadata();
    expect({ pages, delay, loop }).toEqual({ pages: 2, delay: [100, 100], loop: 0 });
  }
  await expect(saveAnimation(join(folder, 'a.gif'), [], 100)).rejects.toThrow(/no frames/);
  await expect(saveAnimation(join(folder, 'a.mp4'), frames, 100)).rejects.toThrow(/must end in .gif or .webp/);
  await expect(saveAnimation(join(folder, 'a.gif'), [frames[0], red], 9)).rejects.toThrow(/a frame of 2x1 among 4x3/);
});

it('cuts the middle out, turned upright', async () => {
  // Stored lying: blue, green, green, red from the left; orientation 6 stands it up with blue on top.
  const lying = Buffer.from([0, 0, 255, 0, 255, 0, 0, 255, 0, 255, 0, 0]);
  const png = await sharp(lying, { raw: { width: 4, height: 1, channels: 3 } })
    .withMetadata({ orientation: 6 })
    .png()
    .toBuffer();
  const whole = await readRaster(png);
  expect([whole.width, whole.height, ...whole.data.subarray(0, 3)]).toEqual([1, 4, 0, 0, 255]);
  const { shape, data } = await readImage(png, { size: 1 });
  expect(shape).toEqual([3, 1, 1]);
  expect([...data]).toEqual([-1, 1, -1]);
});

it('makes 16-bit, palette and transparent pictures plain', async () => {
  const clear = await sharp(Buffer.from([9, 9, 9, 0]), { raw: { width: 1, height: 1, channels: 4 } })
    .png()
    .toBuffer();
  expect([...(await readRaster(clear)).data]).toEqual([255, 255, 255]);
  expect([...(await readRaster(clear, { background: 'black', channels: 1 })).data]).toEqual([0]);
  const deep = await sharp(red.data, { raw: { width: 2, height: 1, channels: 3 } })
    .toColourspace('rgb16')
    .png()
    .toBuffer();
  expect([...(await readRaster(deep)).data]).toEqual([...red.data]);
});

it('names pictures that cannot be read', async () => {
  const path = join(folder, 'bad.jpg');
  const noise = Buffer.from(Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251));
  const jpeg = await sharp(noise, { raw: { width: 64, height: 64, channels: 3 } })
    .jpeg()
    .toBuffer();
  for (const bytes of [Buffer.from('no picture'), jpeg.subarray(0, jpeg.length / 2), Buffer.alloc(0)]) {
    await writeFile(path, bytes);
    await expect(readRaster(path)).rejects.toThrow(/cannot read .*bad.jpg: not a readable picture/);
  }
  await expect(readRaster(join(folder, 'none.png'))).rejects.toThrow(/cannot read .*none.png: no such file/);
  await expect(readRaster(jpeg, { maxPixels: 100 })).rejects.toThrow(/pixel limit/);
});
