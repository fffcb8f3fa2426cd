import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { blankRaster } from '../io/index.js';
import { readRaster, savePng } from '../io/node/index.js';
import { call } from './testing.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('interpolate draws a strip from a picture to one of a data set', async () => {
  const [gray, out] = [join(folder, 'gray.png'), join(folder, 'strip.png')];
  await savePng(gray, blankRaster(40, 40, 3, 90));
  const { code, err, ...answer } = await call(
    'interpolate',
    gray,
    'fashion-mnist:9',
    '--steps',
    '2',
    '--count',
    '3',
    '--out',
    out,
    '--json',
  );
  expect(err).toBe('');
  expect(code).toBe(0);
  expect(JSON.parse(answer.out[0])).toMatchObject({ kind: 'interpolation', count: 3, files: { strip: out } });
  const { width, height } = await readRaster(out);
  expect(width).toBeGreaterThan(5 * 56);
  expect(height).toBeGreaterThan(56);
});

test('likelihood measures bits per dimension', async () => {
  const { code, out } = await call('likelihood', '--images', '1', '--tolerance', '0.1', '--json');
  expect(code).toBe(0);
  const { mean, bits, evaluations } = JSON.parse(out[0]) as { mean: number; bits: number[]; evaluations: number };
  expect(bits).toEqual([mean]);
  expect(mean).toBeGreaterThan(2);
  expect(mean).toBeLessThan(8);
  expect(evaluations).toBeGreaterThan(7);
});

test('sample solves the probability flow', async () => {
  const grid = join(folder, 'grid.png');
  const few = ['--classes', '3', '--per-class', '1', '--tolerance', '0.5', '--out', grid];
  const { code, out } = await call('sample', '--sampler', 'ode', ...few, '--json');
  expect(code).toBe(0);
  expect(JSON.parse(out[0])).toMatchObject({ sampler: 'ode', tolerance: 0.5 });
});

test.each([
  [['interpolate', 'fashion-mnist:99999', 'fashion-mnist:1'], 'has pictures 0..9999 in its test split'],
  [['interpolate', 'a.png', 'b.png', '--count', '1'], '--count: expected a whole number of at least 2'],
  [['interpolate', 'a.png', 'b.png', '--classes', '1,2,3'], 'expected one for each of the 2 pictures, got 3'],
  [['likelihood', '--tolerance', '0'], '--tolerance: expected a number above 0, got 0'],
  [['likelihood', '--from', '2'], '--from: expected a number between 0 and 1, got 2'],
  [['sample', '--sampler', 'ode', '--trajectory', 't.png'], 'leave out --trajectory and --animation'],
])('%j is refused', async (args, message) => {
  const { code, err } = await call(...args);
  expect(code).not.toBe(0);
  expect(err).toContain(message);
});
