import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { readRaster, savePng, writeNpz } from '../io/node/index.js';
import { runCli } from './program.js';

async function call(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: string[][] = [[], []];
  const sink = { out: (line: string) => out.push(line), err: (line: string) => err.push(line), interactive: false };
  return { code: await runCli(args, sink), out: out.join('\n'), err: err.join('\n') };
}

let folder: string;
const at = (name: string): string => join(folder, name);
const bytes = (length: number, step: number) => Uint8Array.from({ length }, (_, i) => (i * i * step) % 256);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  await writeNpz(at('toy.npz'), { images: ndarray(bytes(4 * 16 * 16 * 3, 7), [4, 16, 16, 3], 'uint8') });
  for (const [name, width, height] of [
    ['a', 21, 14],
    ['b', 12, 30],
  ] as const)
    await savePng(at(`${name}.png`), { width, height, channels: 3, data: bytes(3 * width * height, width) });
  const train = ['train-style', '--content', at('toy.npz'), '--style', at('toy.npz'), '--channels', '2,2,4,4'];
  const { code, err } = await call(...train, ...['--size', '16', '--steps', '2', '--batch', '2', '--out', at('net')]);
  expect([code, err]).toEqual([0, '']);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('a trained net gives a picture two styles, in its own size or a smaller one', async () => {
  const flags = ['stylize', '--content', at('a.png'), '--style', at('b.png'), at('a.png'), '--style-weights', '1,3'];
  const rest = ['--alpha', '0.8', '--preserve-colour', '--weights', at('net'), '--threads', '1'];
  expect(await call(...flags, ...rest, '--out', at('c.png'))).toMatchObject({ code: 0, err: '' });
  expect(await readRaster(at('c.png'))).toMatchObject({ width: 21, height: 14 });
  const { out } = await call(...flags, ...rest, '--size', '15', '--json', '--out', at('d.png'));
  expect(JSON.parse(out)).toMatchObject({ kind: 'stylized', width: 15, height: 10, alpha: 0.8 });
});

test.each([
  [[], '--content is missing: the picture'],
  [['--content', 'a.png'], '--style is missing: a picture in the style'],
  [['--content', 'a.png', '--style', 'b.png'], '--weights is missing: a folder of train-style'],
  [['--content', 'a.png', '--style', 'b.png', '--weights', 'x', '--alpha', '2'], '--alpha: expected 0 to 1, got 2'],
  [
    ['--content', 'a.png', '--style', 'b.png', '--weights', 'x', '--style-weights', '1,2'],
    '--style-weights: expected a number of at least 0 for each of 1 styles, not all 0, got 1,2',
  ],
])('stylize %j is refused', async (flags, message) => {
  expect(await call('stylize', ...flags)).toMatchObject({ code: 2, err: `noisewright: ${message}` });
});

test('train-style names what is wrong', async () => {
  const flags = ['train-style', '--content', at('toy.npz'), '--style', at('toy.npz')];
  expect((await call(...flags)).err).toContain('--out is missing');
  expect((await call(...flags, '--channels', '1,2', '--out', at('new'))).err).toContain('expected four numbers');
  expect((await call(...flags, '--out', at('net'))).err).toContain('is not empty');
});
