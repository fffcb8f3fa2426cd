import sharp from 'sharp';
import { drawText } from '../io/index.js';

/** Whether this machine has a font: without one, every letter is drawn as the same box. */
export async function hasFonts(): Promise<boolean> {
  const width = async (text: string) => (await sharp({ text: { text } }).metadata()).width;
  return (await width('iiii')) !== (await width('WWWW'));
}

const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"' };
/** A letter of the built-in font is 7 pixels high, one of a usual font about 0.7 of its size. */
const pixel = 0.1;

/** Replaces the letters of an SVG document as Vega writes it by shapes, in the built-in font of picture grids. */
export function withPixelLetters(svg: string): string {
  return svg.replace(/<text([^>]*)>([^<]*)<\/text>/g, (_, attributes: string, escaped: string) => {
    const attribute = (name: string) => new RegExp(`${name}="([^"]*)"`).exec(attributes)?.[1];
    const text = escaped.replace(/&(\w+);/g, (whole, name: string) => entities[name] ?? whole);
    const { width, height, data } = drawText(text);
    const size = pixel * Number.parseFloat(attribute('font-size') ?? '10');
    const before = { start: 0, middle: 0.5, end: 1 }[attribute('text-anchor') ?? 'start'] ?? 0;
    const dots = Array.from(data.keys()).filter((i) => data[i] === 0);
    const path = dots.map((i) => `M${i % width},${Math.floor(i / width)}h1v1h-1z`).join('');
    const place = `${attribute('transform') ?? ''} scale(${size}) translate(${-before * width},${-height})`;
    return `<path transform="${place}" fill="${attribute('fill') ?? '#000'}" d="${path}"/>`;
  });
}
