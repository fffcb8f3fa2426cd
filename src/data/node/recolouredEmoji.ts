import { join } from 'node:path';
import { blankRaster, paste, type Raster, resizeRaster } from '../../io/index.js';
import {
  makeFolder,
  pathExists,
  readRaster,
  savePng,
  writeFileAtomic,
  writeFolderAtomic,
} from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import type { EmojiFolderOptions } from './emoji.js';
import { packageFolder } from './packages.js';

/** An emoji and its word each. */
export const nouns =
  `💙 heart, ⭐ star, 🔵 circle, 🟦 square, 🔷 diamond, 🔺 triangle, 💧 drop, 🌙 moon, 🍎 apple, 🍐 pear, 🍌 banana,
🍒 cherry, 🍄 mushroom, 🍁 leaf, 🌲 tree, 🌷 tulip, 🐟 fish, 🐦 bird, 🦋 butterfly, 🐱 cat, 🐰 rabbit, 🐻 bear, 🐸 frog,
🏠 house, 🚗 car, 🚀 rocket, 🔑 key, 🔔 bell, 📘 book, 👕 shirt, 👑 crown, 🎈 balloon`
    .split(/,\s/)
    .map((pair) => pair.split(' '));

/** Twemoji's own. */
const colours: Readonly<Record<string, readonly [red: number, green: number, blue: number]>> = {
  red: [221, 46, 68],
  orange: [244, 144, 12],
  yellow: [255, 204, 77],
  green: [120, 177, 89],
  blue: [85, 172, 238],
  purple: [170, 142, 214],
  brown: [193, 105, 79],
  black: [49, 55, 61],
};

/** Pictures of each caption. */
const places = 3;
const side = 32;

/** A quarter of the pairs: every noun lacks two colours, every colour eight nouns. */
const isHeldOut = (noun: number, colour: number): boolean => colour % 4 === (3 * noun) % 4;

/**
 * Makes a caption folder of coloured things, `purple fish`: 32 emoji of the npm package emoji-datasource-twitter (Twemoji,
 * CC-BY 4.0), each in shades of eight colours, smaller or larger, moved and mirrored, at 32x32 pixels. Of the 256 pairs of
 * words 192 are in `train/` and 64 in `test/`, whose words are all in others: a model that puts words together can draw them.
 * @returns how many pictures are in either.
 * @throws Error when the package is not installed, that says how to; when the folder is there already.
 */
export async function writeRecolouredEmojiFolder(
  folder: string,
  { source = packageFolder('emoji-datasource-twitter') }: EmojiFolderOptions = {},
): Promise<{ train: number; test: number }> {
  if (await pathExists(folder)) throw new Error(`${folder} is there already: choose another folder`);
  const rng = new Generator(0);
  const lines: Record<'train' | 'test', string[]> = { train: [], test: [] };
  await writeFolderAtomic(folder, async (aside) => {
    for (const split of ['train', 'test']) await makeFolder(join(aside, split));
    for (const [i, [emoji, noun]] of nouns.entries()) {
      const file = `${emoji.codePointAt(0)!.toString(16)}.png`;
      const picture = await readRaster(join(source, 'img', 'twitter', '64', file));
      for (const [j, [colour, rgb]] of Object.entries(colours).entries()) {
        const split = isHeldOut(i, j) ? 'test' : 'train';
        const shaded = inShadesOf(picture, rgb);
        for (let place = 0; place < places; place++) {
          const name = `${colour}-${noun}-${place}.png`;
          await savePng(join(aside, split, name), placed(shaded, rng));
          lines[split].push(`${JSON.stringify({ file_name: name, text: `${colour} ${noun}` })}\n`);
        }
      }
    }
    for (const [split, own] of Object.entries(lines))
      await writeFileAtomic(join(aside, split, 'metadata.jsonl'), new TextEncoder().encode(own.join('')));
  });
  return { train: lines.train.length, test: lines.test.length };
}

/** White stays white, the middle brightness of what is drawn becomes the colour, and what is darker is so in the new picture. */
export function inShadesOf({ width, height, data }: Raster, rgb: readonly [number, number, number]): Raster {
  const luma = Float64Array.from(
    { length: width * height },
    (_, i) => (0.299 * data[3 * i] + 0.587 * data[3 * i + 1] + 0.114 * data[3 * i + 2]) / 255,
  );
  const drawn = luma.filter((level) => level < 0.97).sort();
  const middle = drawn[drawn.length >> 1] ?? 0.5;
  const out = Uint8Array.from(data, (_, i) => {
    const level = luma[Math.floor(i / 3)];
    const full = rgb[i % 3];
    return level < middle ? (full * level) / middle : full + (255 - full) * ((level - middle) / (1 - middle));
  });
  return { width, height, channels: 3, data: out };
}

/** Two thirds of the picture or more of it, somewhere, one in two mirrored. */
function placed(picture: Raster, rng: Generator): Raster {
  const draw = (count: number) => Math.floor(rng.uniform64() * count);
  const size = side - draw(11);
  const small = resizeRaster(picture, [size, size], 'bilinear');
  const out = blankRaster(side, side, 3);
  const mirrored = draw(2) === 1 ? flipped(small) : small;
  paste(mirrored, out, draw(side - size + 1), draw(side - size + 1));
  return out;
}

const flipped = ({ width, height, channels, data }: Raster): Raster => ({
  width,
  height,
  channels,
  data: Uint8Array.from(data, (_, i) => {
    const [pixel, c] = [Math.floor(i / channels), i % channels];
    const x = pixel % width;
    return data[(pixel - x + width - 1 - x) * channels + c];
  }),
});
