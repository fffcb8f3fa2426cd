// Draws what a model of coloured things makes of prompts that it was not trained on, and counts how often it is right:
//   node docs/scripts/things.mjs runs/things things picture.png
// With a ControlNet of edges it draws unseen hints and what becomes of them, and measures how well they are followed:
//   node docs/scripts/things.mjs runs/things things picture.png runs/edges/controlnet
import { join } from 'node:path';
import { cfg, edgeMap, fromRaster, imageGrid, ndarray, resizeRaster, toRasters } from 'noisewright';
import { loadComponent, loadTextToImage, openCaptionFolder, readRaster, savePng } from 'noisewright/node';

const [model, data, out, controlnet] = process.argv.slice(2);
if (!out) throw new Error('things: expected a model, its data, a PNG file to write and, for hints, a ControlNet');
const pipeline = await loadTextToImage(model);
const common = { steps: 20, seed: 1, guidance: cfg(4), compile: { threads: 1 } };
const pictures = async (split) =>
  Promise.all(
    (await openCaptionFolder(data, { split })).pictures.map(async ({ path, caption }) => ({ caption, raster: await readRaster(path) })),
  );
const [seen, unseen] = [await pictures('train'), await pictures('test')];
const promptsOf = (list) => [...new Set(list.map(({ caption }) => caption))];
const stack = (rasters) =>
  ndarray(new Float32Array(rasters.flatMap((raster) => [...fromRaster(raster).data])), [rasters.length, 3, 32, 32]);
const joined = (parts) => ndarray(new Float32Array(parts.flatMap(({ data }) => [...data])), [parts.reduce((n, { shape }) => n + shape[0], 0), 3, 32, 32]);

/** Where something is drawn: a byte for each pixel. */
const drawn = ({ data }) => Uint8Array.from({ length: 32 * 32 }, (_, i) => (Math.min(...data.subarray(3 * i, 3 * i + 3)) < 205 ? 1 : 0));

/** What is drawn, brought to 16x16 pixels, so that place and size do not count. */
function centred(raster) {
  const mask = drawn(raster);
  const on = [...mask.keys()].filter((i) => mask[i]);
  if (on.length === 0) return undefined;
  const [xs, ys] = [on.map((i) => i % 32), on.map((i) => i >> 5)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - left + 1, Math.max(...ys) - top + 1];
  const part = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const [pixel, c] = [Math.floor(i / 3), i % 3];
    return raster.data[3 * ((top + Math.floor(pixel / width)) * 32 + left + (pixel % width)) + c];
  });
  return resizeRaster({ width, height, channels: 3, data: part }, [16, 16], 'bilinear').data;
}
const mirrored = (bytes) =>
  Uint8Array.from(bytes, (_, i) => {
    const [pixel, c] = [Math.floor(i / 3), i % 3];
    return bytes[3 * ((pixel & ~15) + 15 - (pixel & 15)) + c];
  });
const distance = (a, b) => a.reduce((sum, level, i) => sum + (level - b[i]) ** 2, 0);

/** The words of the nearest of all pictures, those that were trained on and those that were held out. */
const known = [...seen, ...unseen].flatMap(({ caption, raster }) => {
  const own = centred(raster);
  return [own, mirrored(own)].map((bytes) => ({ caption, bytes }));
});
function nearest(raster) {
  const own = centred(raster);
  if (!own) return '';
  return known.reduce((best, entry) => {
    const far = distance(own, entry.bytes);
    return far < best.far ? { far, caption: entry.caption } : best;
  }, { far: Number.POSITIVE_INFINITY, caption: '' }).caption;
}

if (controlnet) await drawHints();
else await drawPrompts();

/** Evenly chosen, so that every thing is among them. */
function sixtyFour(prompts) {
  return prompts.filter((_, i) => i % Math.round(prompts.length / 64) === 0);
}

async function drawPrompts() {
  for (const [name, prompts] of [['trained on', promptsOf(seen)], ['held out', promptsOf(unseen)]]) {
    const images = toRasters(await pipeline.images({ ...common, prompt: sixtyFour(prompts), imagesPerPrompt: 2 }));
    const right = { colour: 0, thing: 0, both: 0 };
    for (const [i, image] of images.entries()) {
      const [asked, found] = [sixtyFour(prompts)[i >> 1].split(' '), nearest(image).split(' ')];
      const [colour, thing] = [asked[0] === found[0], asked[1] === found[1]];
      right.colour += colour;
      right.thing += thing;
      right.both += colour && thing;
    }
    const shares = Object.entries(right).map(([what, count]) => `${what} ${Math.round((100 * count) / images.length)}%`);
    console.log(`${images.length} pictures of prompts ${name}: right ${shares.join(', ')}`);
  }
  const shown = ['green heart', 'blue cat', 'red heart', 'purple cat', 'yellow crown', 'black star', 'brown tree', 'blue fish', 'orange house', 'green rocket', 'purple balloon', 'yellow frog'];
  const images = await pipeline.images({ ...common, prompt: shown, imagesPerPrompt: 8 });
  await savePng(out, imageGrid(images, 8, { rowLabels: shown, scale: 2 }));
}

async function drawHints() {
  const net = await loadComponent(controlnet);
  const hint = (raster) => {
    const { data, shape } = fromRaster(edgeMap(raster));
    return { data: data.map((x) => (x + 1) / 2), shape };
  };
  const controlsOf = (list) => [
    { net, image: ndarray(new Float32Array(list.flatMap((raster) => [...hint(raster).data])), [list.length, 3, 32, 32]) },
  ];
  const all = unseen.filter((_, i) => i % 3 === 0);
  const request = { ...common, prompt: all.map(({ caption }) => caption) };
  for (const [name, controls] of [['with', controlsOf(all.map(({ raster }) => raster))], ['without', []]]) {
    const images = toRasters(await pipeline.images({ ...request, controls }));
    const overlaps = images.map((image, i) => {
      const [a, b] = [drawn(image), drawn(all[i].raster)];
      return a.reduce((n, on, k) => n + (on & b[k]), 0) / a.reduce((n, on, k) => n + (on | b[k]), 0);
    });
    console.log(`${name} the ControlNet, drawn area and that of the hint: overlap ${(overlaps.reduce((a, b) => a + b) / overlaps.length).toFixed(2)} of their union`);
  }
  const shown = ['blue apple', 'yellow crown', 'purple bell', 'green rocket', 'black bird', 'orange house', 'brown butterfly', 'red rabbit'];
  const rows = [];
  for (const caption of shown) {
    const { raster } = unseen.find((picture) => picture.caption === caption);
    const many = { ...common, prompt: caption, imagesPerPrompt: 3 };
    const led = await pipeline.images({ ...many, controls: controlsOf([raster, raster, raster]) });
    rows.push(stack([edgeMap(raster)]), led, await pipeline.images(many));
  }
  const columnLabels = ['hint', 'with', 'it', '', 'without', '', ''];
  await savePng(out, imageGrid(joined(rows), 7, { rowLabels: shown, columnLabels, scale: 2 }));
}
