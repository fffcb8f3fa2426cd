import { expect, it } from 'vitest';
import { edgeMap } from './edges.js';

/** Black on white, a square from 3 to 8. */
const square = (level: number) => ({
  width: 12,
  height: 12,
  channels: 1 as const,
  data: Uint8Array.from({ length: 144 }, (_, i) => {
    const [x, y] = [i % 12, Math.floor(i / 12)];
    return x >= 3 && x <= 8 && y >= 3 && y <= 8 ? level : 255;
  }),
});

it('draws outlines, one pixel wide, and nothing where a picture is flat', () => {
  const { data, channels } = edgeMap(square(0));
  expect(channels).toBe(3);
  const row = (y: number) => Array.from({ length: 12 }, (_, x) => data[3 * (12 * y + x)] / 255);
  expect(row(0)).toEqual(new Array(12).fill(0));
  const middle = row(6);
  expect(middle.reduce((a, b) => a + b)).toBe(2);
  expect(Math.abs(middle.indexOf(1) - 2.5)).toBe(0.5);
  expect(Math.abs(middle.lastIndexOf(1) - 8.5)).toBe(0.5);
  expect(new Set(edgeMap(square(255)).data)).toEqual(new Set([0]));
});

it('leaves out weak slopes, unless told to see them', () => {
  expect(new Set(edgeMap(square(230)).data)).toEqual(new Set([0]));
  expect(new Set(edgeMap(square(230), { low: 10, high: 20 }).data)).toEqual(new Set([0, 255]));
});
