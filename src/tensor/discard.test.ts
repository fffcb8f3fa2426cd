import { expect, it } from 'vitest';
import { discard } from './discard.js';

it('discard frees memory without the garbage collector', () => {
  const arrays = [1, 2].map(() => new Float32Array(2 ** 23).fill(1));
  const before = process.memoryUsage().arrayBuffers;
  discard([arrays[0].buffer, arrays[1].buffer, arrays[0].buffer]);
  expect(process.memoryUsage().arrayBuffers).toBeLessThanOrEqual(before - 2 ** 26);
  expect(arrays.map((array) => array.length)).toEqual([0, 0]);
  discard([]);
});
