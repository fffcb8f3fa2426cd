import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { blankRaster } from '../../io/index.js';
import { savePng } from '../../io/node/index.js';
import { openCaptionFolder, writeEmojiFolder } from './index.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));
const picture = (...names: string[]) => savePng(join(folder, ...names), blankRaster(2, 2, 3));
const metadata = (...rows: object[]) =>
  writeFile(join(folder, 'metadata.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

it('reads metadata.jsonl, with hints', async () => {
  await picture('a.png');
  await picture('hints', 'a.png');
  await metadata({ file_name: 'a.png', text: ' a cat ', conditioning: 'hints/a.png', more: 1 });
  expect(await openCaptionFolder(folder)).toEqual({
    pictures: [{ path: join(folder, 'a.png'), caption: 'a cat', hint: join(folder, 'hints', 'a.png') }],
    skipped: [],
  });
});

it('reads texts beside pictures, in the folder of a split', async () => {
  for (const split of ['train', 'test']) {
    await picture(split, 'sub', 'b.png');
    await writeFile(join(folder, split, 'sub', 'b.txt'), `a ${split} dog\n`);
  }
  expect((await openCaptionFolder(folder)).pictures[0].caption).toBe('a train dog');
  expect((await openCaptionFolder(folder, { split: 'test' })).pictures[0].caption).toBe('a test dog');
});

it('names what is missing, and leaves it out when told to', async () => {
  await picture('a.png');
  await picture('b.png');
  await writeFile(join(folder, 'a.txt'), 'a cat');
  await expect(openCaptionFolder(folder)).rejects.toThrow(/1 pictures cannot be used .*\n.*b\.png: no caption/);
  expect(await openCaptionFolder(folder, { skipCorrupt: true })).toMatchObject({
    pictures: [{ caption: 'a cat' }],
    skipped: [expect.stringContaining('b.png')],
  });
  await metadata(
    { file_name: 'a.png', text: 'x' },
    { file_name: 'c.png', text: 'y' },
    { file_name: 'b.png', text: ' ' },
  );
  await expect(openCaptionFolder(folder)).rejects.toThrow(/line 2: no file c\.png\n.*line 3: no caption for b\.png/);
  await metadata({ file: 'a.png', text: 'x' });
  await expect(openCaptionFolder(folder)).rejects.toThrow(/metadata.jsonl: line 1: .*file_name/s);
  await expect(openCaptionFolder(join(folder, 'none'))).rejects.toThrow(/cannot read .*none/);
});

it('makes a folder of emoji, some held out', async () => {
  const source = join(folder, 'package');
  const image = (name: string, category = 'Symbols') => ({
    name,
    image: `${name}.png`,
    category,
    has_img_twitter: true,
  });
  const list = [
    image('GREEN HEART'),
    image('HEAVY BLACK HEART'),
    image('LARGE RED CIRCLE'),
    image('Wales Flag', 'Flags'),
  ];
  await mkdir(source);
  await writeFile(join(source, 'emoji.json'), JSON.stringify(list));
  for (const { image } of list) await savePng(join(source, 'img', 'twitter', '64', image), blankRaster(2, 2, 3));
  const out = join(folder, 'emoji');
  expect(await writeEmojiFolder(out, { source })).toEqual({ train: 2, test: 1 });
  const { pictures } = await openCaptionFolder(out);
  expect(pictures.map(({ caption }) => caption)).toEqual(['red heart', 'red circle']);
  expect(await readFile(join(out, 'test', 'metadata.jsonl'), 'utf8')).toContain('green heart');
  await expect(writeEmojiFolder(out, { source })).rejects.toThrow('is there already');
});
