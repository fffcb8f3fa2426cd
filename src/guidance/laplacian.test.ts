import { expect, test } from 'vitest';
import type { NdArray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { constant, evaluate } from '../tensor/index.js';
import { fromLaplacianPyramid, gaussianBlur2d, laplacianPyramid, pyramidDown, pyramidUp } from './index.js';

const values = (x: NdArray) => [...(x.data as Float32Array)];

test('a pyramid of any size gives its picture back', async () => {
  for (const [height, width, levels] of [
    [8, 8, 3],
    [7, 5, 3],
    [2, 3, 4],
  ]) {
    const x = constant(new Generator(0).randn([1, 2, height, width]));
    const pyramid = laplacianPyramid(x, levels);
    expect(pyramid.at(-1)!.shape.slice(2)).toEqual(
      [height, width].map((n) => Array.from({ length: levels - 1 }).reduce<number>((m) => Math.ceil(m / 2), n)),
    );
    const [back, given] = (await evaluate([fromLaplacianPyramid(pyramid), x])) as NdArray[];
    values(back).forEach((value, i) => {
      expect(value).toBeCloseTo(values(given)[i], 5);
    });
  }
});

test('halving, doubling and blurring keep what is constant', async () => {
  const flat = constant(3).expand([1, 1, 6, 5]);
  for (const image of [pyramidDown(flat), pyramidUp(flat), gaussianBlur2d(flat, 13, 2)])
    for (const value of values((await evaluate(image)) as NdArray)) expect(value).toBeCloseTo(3, 5);
});
