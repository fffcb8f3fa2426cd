import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readRaster } from '../io/node/index.js';
import { DiTVariant, UViT } from '../models/index.js';
import { loadModel } from '../models/node/index.js';
import { cli, writeToy } from './testing.js';

let folder: string;
let data: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  data = join(folder, 'toy.npz');
  await writeToy(data, 16);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const small = '{"depth": 2, "numHeads": 1, "patchSize": 4, ';
test.each([
  ['uvit', UViT, ['--model', 'uvit', '--model-config', `${small}"embedDim": 8}`]],
  [
    'dit-variant',
    DiTVariant,
    ['--model', 'dit-variant', '--conditioning', 'in-context', '--model-config', `${small}"hiddenSize": 8}`],
  ],
])('%s: is trained, continued, opened and sampled with guidance', async (_, Class, flags) => {
  const run = join(folder, Class.className);
  const made = await cli(...['train', ...flags, '--data', data, '--batch', '8', '--steps', '2', '--out', run]);
  expect(made.err).toBe('');
  expect((await cli('train', '--resume', run, '--steps', '3')).out).toContain('continuing after step 2');
  const model = await loadModel(join(run, 'transformer'));
  expect(model).toBeInstanceOf(Class);
  expect(model.nullClass).toBe(3);
  for (const guidance of ['2', 'pag=2']) {
    const out = join(folder, 'grid.png');
    const sampled = ['sample', run, '--classes', '2,0', '--per-class', '2', '--steps', '2'];
    expect((await cli(...sampled, '--guidance', guidance, '--out', out)).err).toBe('');
    expect((await readRaster(out)).height).toBe(2 * 66 + 2);
  }
});

test('a U-ViT learns no variance', async () => {
  const { code, err } = await cli(
    ...['train', '--model', 'uvit', '--learn-variance', '--data', data, '--out', join(folder, 'none')],
  );
  expect(code).not.toBe(0);
  expect(err).toContain('UViT: does not predict a variance, as learnVariance asks');
});
