import { Generator } from '../random/index.js';
import type { Dataset } from './dataset.js';
import { type Colour, mixColours, type Painting, type Palette, textureFamilies } from './textureFamilies.js';

export interface TextureOptions {
  /** Side of the square pictures; default 64. */
  readonly size?: number;
  /** Default 4000. */
  readonly length?: number;
  readonly seed?: number;
}

/** Samples per pixel and axis: hard edges come out smooth. */
const oversampling = 2;
/** Bytes of pictures that are kept once painted. */
const mostKept = 2 ** 30;

/**
 * Pictures of textures that code paints, in any number: the class is one of 23 families (brushwork, mosaic, halftone ...),
 * everything else is drawn anew for each. Picture i is the same for the same seed, whatever the length and the order.
 * @throws RangeError for a size or length below 1.
 */
export function textures({ size = 64, length = 4000, seed = 0 }: TextureOptions = {}): Dataset {
  for (const [name, value] of Object.entries({ size, length }))
    if (!Number.isInteger(value) || value < 1) throw new RangeError(`textures: ${name} ${value}, expected 1, 2 ...`);
  const classNames = Object.keys(textureFamilies).sort();
  const label = (i: number): number => i % classNames.length;
  const painted: (Uint8Array | undefined)[] = [];
  const kept = length * 3 * size * size <= mostKept;
  const picture = (i: number): Uint8Array => {
    const rng = new Generator((Math.imul(seed, 0x9e3779b1) ^ Math.imul(i + 1, 0x85ebca6b)) >>> 0);
    return paint(placed(rng, textureFamilies[classNames[label(i)]](paletteOf(rng))), size);
  };
  return {
    name: 'textures',
    length,
    shape: [3, size, size],
    classNames,
    label,
    fill(i, out, offset) {
      const bytes = painted[i] ?? picture(i);
      if (kept) painted[i] = bytes;
      for (let k = 0; k < bytes.length; k++) out[offset + k] = bytes[k] / 127.5 - 1;
    },
  };
}

/** Turned, moved, and 5 to 16 units wide. */
function placed(rng: Generator, painting: Painting): Painting {
  const draw = (low: number, high: number): number => low + (high - low) * rng.uniform64();
  const turn = draw(0, 1) < 0.5 ? draw(-0.15, 0.15) : draw(-Math.PI, Math.PI);
  const units = 5 * 3.2 ** draw(0, 1);
  const [c, s, left, top] = [units * Math.cos(turn), units * Math.sin(turn), draw(0, 1000), draw(0, 1000)];
  return (x, y) => painting(left + c * x - s * y, top + s * x + c * y);
}

/** [3, size, size] */
function paint(painting: Painting, size: number): Uint8Array {
  const plane = size * size;
  const fine = size * oversampling;
  const sums = new Float32Array(3 * plane);
  for (let y = 0; y < fine; y++)
    for (let x = 0; x < fine; x++) {
      const colour = painting((x + 0.5) / fine, (y + 0.5) / fine);
      const at = Math.floor(y / oversampling) * size + Math.floor(x / oversampling);
      for (let k = 0; k < 3; k++) sums[at + k * plane] += Math.min(1, Math.max(0, colour[k]));
    }
  return Uint8Array.from(sums, (sum) => Math.round((255 * sum) / oversampling ** 2));
}

function paletteOf(rng: Generator): Palette {
  const between = (low: number, high: number): number => low + (high - low) * rng.uniform64();
  const salt = rng.random();
  const colours = drawColours(between);
  const hash = (x: number, y: number, k = 0): number => {
    let h = Math.imul(x, 0x27d4eb2d) ^ Math.imul(y, 0x165667b1) ^ Math.imul(k, 0x9e3779b1) ^ salt;
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
  };
  const noise = (x: number, y: number, k = 0): number => {
    const [i, j] = [Math.floor(x), Math.floor(y)];
    const [u, v] = [smooth(x - i), smooth(y - j)];
    const above = hash(i, j, k) + (hash(i + 1, j, k) - hash(i, j, k)) * u;
    const below = hash(i, j + 1, k) + (hash(i + 1, j + 1, k) - hash(i, j + 1, k)) * u;
    return above + (below - above) * v;
  };
  return {
    between,
    hash,
    noise,
    clouds: (x, y, k = 0) =>
      (8 * noise(x, y, k) +
        4 * noise(2 * x, 2 * y, k + 1) +
        2 * noise(4 * x, 4 * y, k + 2) +
        noise(8 * x, 8 * y, k + 3)) /
      15,
    blend(t) {
      const at = Math.min(1, Math.max(0, t)) * (colours.length - 1);
      const i = Math.min(colours.length - 2, Math.floor(at));
      return mixColours(colours[i], colours[i + 1], at - i);
    },
    pick: (h) => colours[Math.min(colours.length - 1, Math.floor(h * colours.length))],
  };
}

const smooth = (t: number): number => t * t * (3 - 2 * t);

/** Three to six colours from dark to light or the other way about, of hues near each other, opposite, or any. */
function drawColours(between: Palette['between']): Colour[] {
  const count = 3 + Math.floor(between(0, 4));
  const [hue, scheme, strength] = [between(0, 1), between(0, 1), between(0, 1) ** 0.6];
  const spread = between(0.02, 0.15);
  const [dark, light] = [between(0.05, 0.35), between(0.65, 0.95)];
  const colours = Array.from({ length: count }, (_, i): Colour => {
    const own = scheme < 0.4 ? 0 : scheme < 0.75 ? 0.5 * (i % 2) : between(0, 1);
    const lightness = dark + ((light - dark) * i) / (count - 1) + between(-0.08, 0.08);
    return fromHsl(hue + own + between(-spread, spread), Math.min(1, strength * between(0.6, 1.2)), lightness);
  });
  return between(0, 1) < 0.5 ? colours : colours.reverse();
}

function fromHsl(hue: number, saturation: number, lightness: number): Colour {
  const light = Math.min(1, Math.max(0, lightness));
  const chroma = saturation * Math.min(light, 1 - light);
  const channel = (n: number): number => {
    const k = (((n + hue * 12) % 12) + 12) % 12;
    return light - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  };
  return [channel(0), channel(8), channel(4)];
}
