import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Raster } from '../../io/index.js';
import { readRaster, savePng } from '../../io/node/index.js';
import { openCaptionFolder } from './captionFolder.js';
import { inShadesOf, nouns, writeRecolouredEmojiFolder } from './recolouredEmoji.js';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

it('keeps white, gives the middle brightness the colour, and darker parts darker shades', () => {
  const levels = [255, 100, 100, 50];
  const picture: Raster = { width: 4, height: 1, channels: 3, data: Uint8Array.from(levels.flatMap((l) => [l, l, l])) };
  expect([...inShadesOf(picture, [200, 100, 0]).data]).toEqual([255, 255, 255, 200, 100, 0, 200, 100, 0, 100, 50, 0]);
});

it('makes a folder of coloured things, with pairs held out whose words are not', async () => {
  const source = join(root, 'package');
  const data = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (Math.floor(i / 3) % 64 < 40 ? 90 : 255));
  for (const [emoji] of nouns) {
    const file = `${emoji.codePointAt(0)!.toString(16)}.png`;
    await savePng(join(source, 'img', 'twitter', '64', file), { width: 64, height: 64, channels: 3, data });
  }
  const out = join(root, 'things');
  expect(await writeRecolouredEmojiFolder(out, { source })).toEqual({ train: 576, test: 192 });
  const pairs = async (split: 'train' | 'test') =>
    new Set((await openCaptionFolder(out, { split })).pictures.map(({ caption }) => caption));
  const [seen, unseen] = [await pairs('train'), await pairs('test')];
  expect([seen.size, unseen.size]).toEqual([192, 64]);
  expect([...unseen].filter((pair) => seen.has(pair))).toEqual([]);
  const words = new Set([...seen].flatMap((pair) => pair.split(' ')));
  expect([...unseen].flatMap((pair) => pair.split(' ')).filter((word) => !words.has(word))).toEqual([]);
  expect(await readRaster(join(out, 'train', 'green-heart-0.png'))).toMatchObject({ width: 32, height: 32 });
  await expect(writeRecolouredEmojiFolder(out, { source })).rejects.toThrow('is there already');
}, 20_000);
