import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ndarray } from '../../array/index.js';
import { parseNpy } from '../npy.js';
import { readBytes } from './files.js';
import { RowFolder, writeRows } from './rows.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function* blocks() {
  yield { x: ndarray([1, 2, 3, 4], [2, 2]), ids: ndarray([7, 8], [2], 'int64') };
  yield { x: ndarray([5, 6], [1, 2]), ids: ndarray([9], [1], 'int64') };
}

it('gives back rows of what was written block by block', async () => {
  const place = join(folder, 'cache');
  await writeRows(place, 3, { why: 'test' }, blocks());
  const rows = await RowFolder.open(place);
  expect(rows.note).toEqual({ why: 'test' });
  expect(await rows.rows([2, 0])).toEqual({ x: ndarray([5, 6, 1, 2], [2, 2]), ids: ndarray([9, 7], [2], 'int64') });
  expect(parseNpy(await readBytes(join(place, 'x.npy')))).toEqual(ndarray([1, 2, 3, 4, 5, 6], [3, 2]));
  await rows.close();
  await truncate(join(place, 'x.npy'), 10);
  await expect(RowFolder.open(place)).rejects.toThrow(/x\.npy: 10 bytes do not hold float32 \[3,2\]/);
});

it('leaves nothing behind when a block fails', async () => {
  async function* failing() {
    yield* blocks();
    throw new Error('no more');
  }
  await expect(writeRows(join(folder, 'cache'), 9, null, failing())).rejects.toThrow(/^no more$/);
  expect(await readdir(folder)).toEqual([]);
});
