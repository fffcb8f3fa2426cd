import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { lock } from './lock.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

it('is held by one at a time', async () => {
  const path = join(folder, 'new', 'a.lock');
  const unlock = await lock(path, 'the door');
  await expect(lock(path, 'the door')).rejects.toThrow(
    `the door is in use by process ${process.pid} (if that is something else, remove ${path})`,
  );
  await unlock();
  expect(await readdir(join(folder, 'new'))).toEqual([]);
  await (await lock(path, 'the door'))();
});

it('is refused while another process lives, and taken over from a dead one or from another machine', async () => {
  const path = join(folder, 'a.lock');
  await writeFile(path, `${process.ppid} ${hostname()}`);
  await expect(lock(path, 'it')).rejects.toThrow(`in use by process ${process.ppid}`);
  // Of this process, but of an earlier life; of a number that no process has; of elsewhere; cut short.
  for (const text of [`${process.pid} ${hostname()}`, `4194305 ${hostname()}`, `${process.ppid} elsewhere`, '']) {
    await writeFile(path, text);
    await (await lock(path, 'it'))();
  }
});

it('names the path that cannot be written', async () => {
  await writeFile(join(folder, 'file'), '');
  await expect(lock(join(folder, 'file', 'a.lock'), 'it')).rejects.toThrow(/cannot write .*a.lock: part of the path/);
});
