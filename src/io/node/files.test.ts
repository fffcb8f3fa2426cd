import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { ndarray } from '../../array/index.js';
import { serializeSafetensors } from '../safetensors.js';
import { readNpz, readSafetensors, readSafetensorsHeader, writeNpz, writeSafetensors } from './arrays.js';
import { makeFolder, readBytes, recoverFolder, writeFileAtomic, writeFolderAtomic } from './files.js';
import { readJson, writeJson } from './json.js';
import { lock } from './lock.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const text = (words: string): Uint8Array => new TextEncoder().encode(words);

/** Pieces whose writing fails midway, as on a full disk. */
function* fullDisk(): Generator<Uint8Array> {
  yield text('half');
  throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
}

describe('writeFileAtomic', () => {
  it('makes folders and replaces files', async () => {
    const path = join(folder, 'a/b/c.txt');
    await writeFileAtomic(path, text('old'));
    await writeFileAtomic(path, [text('ne'), text('w')]);
    expect(await readFile(path, 'utf8')).toBe('new');
    expect(await readdir(join(folder, 'a/b'))).toEqual(['c.txt']);
  });

  it('keeps the old file and leaves nothing behind when the disk is full', async () => {
    const path = join(folder, 'c.txt');
    await writeFileAtomic(path, text('old'));
    await expect(writeFileAtomic(path, fullDisk())).rejects.toThrow(`cannot write ${path}: the disk is full`);
    expect(await readFile(path, 'utf8')).toBe('old');
    expect(await readdir(folder)).toEqual(['c.txt']);
  });

  it('says what to do when the path cannot be written', async () => {
    await writeFile(join(folder, 'file'), '');
    await expect(writeFileAtomic(join(folder, 'file/x'), text(''))).rejects.toThrow(/part of the path is a file/);
    await expect(writeFileAtomic(folder, text(''))).rejects.toThrow(`cannot write ${folder}: `);
  });

  it('removes what a killed process left, and not what another one is writing', async () => {
    const { pid } = spawnSync(process.execPath, ['-e', '']);
    await writeFile(join(folder, `.c.txt.${pid}-0123abcd.tmp`), 'half');
    await writeFile(join(folder, `.c.txt.${process.ppid}-0123abcd.tmp`), 'half');
    await Promise.all([
      writeFileAtomic(join(folder, 'c.txt'), text('x')),
      writeFileAtomic(join(folder, 'c.txt'), text('x')),
    ]);
    expect((await readdir(folder)).sort()).toEqual([`.c.txt.${process.ppid}-0123abcd.tmp`, 'c.txt']);
  });
});

describe('writeFolderAtomic', () => {
  const write = (path: string, words: string): Promise<void> =>
    writeFolderAtomic(path, async (aside) => {
      await mkdir(join(aside, 'inner'));
      await writeFile(join(aside, 'inner/x'), words);
    });

  it('replaces a whole folder', async () => {
    const path = join(folder, 'run');
    await write(path, 'old');
    await writeFile(join(path, 'extra'), '');
    await write(path, 'new');
    expect(await readdir(path)).toEqual(['inner']);
    expect(await readFile(join(path, 'inner/x'), 'utf8')).toBe('new');
    expect(await readdir(folder)).toEqual(['run']);
  });

  it('keeps the old folder when writing fails', async () => {
    const path = join(folder, 'run');
    await write(path, 'old');
    const failing = writeFolderAtomic(path, (aside) => writeFileAtomic(join(aside, 'x'), fullDisk()));
    await expect(failing).rejects.toThrow(/cannot write .*run: .*the disk is full/);
    expect(await readFile(join(path, 'inner/x'), 'utf8')).toBe('old');
    expect(await readdir(folder)).toEqual(['run']);
  });

  it('brings back the folder of a process killed between the renames', async () => {
    await write(join(folder, '.run.replaced'), 'old');
    await recoverFolder(join(folder, 'run'));
    expect(await readFile(join(folder, 'run/inner/x'), 'utf8')).toBe('old');
    await write(join(folder, '.run.replaced'), 'older');
    await recoverFolder(join(folder, 'run'));
    expect(await readdir(folder)).toEqual(['run']);
  });

  it('does not replace a file', async () => {
    await writeFile(join(folder, 'run'), 'mine');
    await expect(write(join(folder, 'run'), 'new')).rejects.toThrow(/there is a file of that name/);
    expect(await readFile(join(folder, 'run'), 'utf8')).toBe('mine');
  });
});

describe('reading', () => {
  it('names what is missing', async () => {
    const path = join(folder, 'nowhere');
    await expect(readBytes(path)).rejects.toThrow(`cannot read ${path}: no such file or folder`);
    await expect(readBytes(folder)).rejects.toThrow(`cannot read ${folder}: a folder, expected a file`);
  });

  it('checks JSON against a schema', async () => {
    const path = join(folder, 'config.json');
    await writeJson(path, { steps: 20, name: 'x' });
    expect(await readJson(path)).toEqual({ steps: 20, name: 'x' });
    expect(await readJson(path, z.object({ steps: z.number() }))).toEqual({ steps: 20 });
    await expect(readJson(path, z.object({ steps: z.string() }))).rejects.toThrow(
      /config.json: .*expected string.*steps/s,
    );
    await writeFile(path, '{"steps": 20,');
    await expect(readJson(path)).rejects.toThrow(/config.json: not valid JSON/);
    await writeFile(path, Uint8Array.of(0x22, 0xff, 0x22));
    await expect(readJson(path)).rejects.toThrow(/config.json: not valid JSON/);
  });

  it('reads arrays back, some or all', async () => {
    const arrays = { x: ndarray([1, 2]), y: ndarray([3], [1], 'int64') };
    const path = join(folder, 'x.safetensors');
    await writeSafetensors(path, arrays, { format: 'pt' });
    expect(await readFile(path)).toEqual(Buffer.from(serializeSafetensors(arrays, { format: 'pt' })));
    expect(await readSafetensors(path)).toEqual({
      tensors: new Map(Object.entries(arrays).reverse()),
      metadata: { format: 'pt' },
    });
    expect((await readSafetensors(path, (name) => name === 'y')).tensors).toEqual(new Map([['y', arrays.y]]));
    expect((await readSafetensorsHeader(path)).tensors.get('x')).toMatchObject({ dtype: 'float32', shape: [2] });
    await writeNpz(join(folder, 'x.npz'), arrays);
    expect(Object.fromEntries(await readNpz(join(folder, 'x.npz')))).toEqual(arrays);
  });

  it('names a damaged file', async () => {
    for (const bytes of [new Uint8Array(3), Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 255, 1)]) {
      await writeFile(join(folder, 'bad'), bytes);
      await expect(readSafetensors(join(folder, 'bad'))).rejects.toThrow(/cannot read .*bad: safetensors: /);
      await expect(readNpz(join(folder, 'bad'))).rejects.toThrow(/cannot read .*bad: zip: no end record/);
    }
  });
});

it.skipIf(process.platform !== 'linux')('a folder that the system can never make is refused at once', async () => {
  await expect(makeFolder('/proc/nope/a')).rejects.toThrow(
    'cannot write /proc/nope/a: its folder cannot be made here: check the path, or write elsewhere',
  );
  await expect(lock('/proc/nope/train.lock', 'the run')).rejects.toThrow('cannot write /proc/nope');
});
