import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { readRaster, readSafetensors, savePng, writeNpz } from '../io/node/index.js';
import { cli } from './testing.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const bytes = (length: number, step: number) => Uint8Array.from({ length }, (_, i) => (i * i * step) % 256);
const rates = ['--warmup', '2', '--learning-rate', '0.01', '--threads', '1'];
const data = () => ['--content', at('toy.npz'), '--style', at('styles.npz'), '--size', '16', '--batch', '2'];
const train = (out: string, steps: number, ...more: string[]) =>
  cli('train-style', ...data(), ...rates, '--channels', '2,2,4,4', '--steps', `${steps}`, '--out', at(out), ...more);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  await writeNpz(at('toy.npz'), { images: ndarray(bytes(5 * 16 * 16 * 3, 7), [5, 16, 16, 3], 'uint8') });
  await writeNpz(at('styles.npz'), { images: ndarray(bytes(7 * 16 * 16 * 3, 5), [7, 16, 16, 3], 'uint8') });
  const [images, labels] = [
    ndarray(bytes(6 * 16 * 16 * 3, 3), [6, 16, 16, 3], 'uint8'),
    ndarray([0, 1, 2, 0, 1, 2], [6], 'int32'),
  ];
  await writeNpz(at('classes.npz'), { images, labels, images_test: images, labels_test: labels });
  for (const [name, width, height] of [
    ['a', 21, 14],
    ['b', 12, 30],
  ] as const)
    await savePng(at(`${name}.png`), { width, height, channels: 3, data: bytes(3 * width * height, width) });
  const { code, err } = await train('whole', 9, '--checkpoint-every', '4', '--log-every', '2', '--flip');
  expect([code, err]).toEqual([0, '']);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('a trained net gives a picture two styles, in its own size or a smaller one', async () => {
  const flags = ['stylize', '--content', at('a.png'), '--style', at('b.png'), at('a.png'), '--style-weights', '1,3'];
  const rest = ['--alpha', '0.8', '--preserve-colour', '--weights', at('whole'), '--threads', '1'];
  expect(await cli(...flags, ...rest, '--out', at('c.png'))).toMatchObject({ code: 0, err: '' });
  expect(await readRaster(at('c.png'))).toMatchObject({ width: 21, height: 14 });
  const { out } = await cli(...flags, ...rest, '--size', '15', '--json', '--out', at('d.png'));
  expect(JSON.parse(out)).toMatchObject({ kind: 'stylized', width: 15, height: 10, alpha: 0.8 });
});

test('without --weights the net that comes along paints: alpha 0 is a coarse copy, alpha 1 is not', async () => {
  const stripes = (width: number, height: number, [r, g, b]: readonly number[]) => {
    const data = new Uint8Array(3 * width * height);
    for (let i = 0; i < width * height; i++)
      data.set(Math.floor((i % width) / 12) % 2 ? [r, g, b] : [255 - r, 255 - g, 255 - b], 3 * i);
    return { width, height, channels: 3 as const, data };
  };
  const [content, style] = [stripes(61, 45, [40, 60, 200]), stripes(50, 64, [230, 40, 30])];
  await savePng(at('content.png'), content);
  await savePng(at('style.png'), style);
  const made = async (alpha: string) => {
    const flags = ['--content', at('content.png'), '--style', at('style.png'), '--alpha', alpha, '--threads', '1'];
    expect(await cli('stylize', ...flags, '--out', at('e.png'))).toMatchObject({ code: 0, err: '' });
    return readRaster(at('e.png'));
  };
  const apart = (a: Uint8Array, b: Uint8Array) => a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) / a.length;
  const [kept, styled] = [await made('0'), await made('1')];
  expect(kept).toMatchObject({ width: 61, height: 45 });
  // Of one gray the distance from these stripes would be 85.
  expect(apart(kept.data, content.data)).toBeLessThan(30);
  expect(apart(styled.data, kept.data)).toBeGreaterThan(15);
});

test('a run that was stopped goes on bit for bit', async () => {
  const common = ['--checkpoint-every', '4', '--log-every', '2', '--flip'];
  expect((await train('parts', 5, ...common)).code).toBe(0);
  expect(await cli('train-style', '--resume', at('parts'), '--steps', '9')).toMatchObject({ code: 0, err: '' });
  const state = async (run: string) => (await readSafetensors(join(at(run), 'net', 'model.safetensors'))).tensors;
  expect(await state('parts')).toEqual(await state('whole'));
  const metrics = async (run: string) =>
    (await readFile(join(at(run), 'metrics.jsonl'), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { step: number; loss?: number; contentLoss?: number });
  const last = async (run: string) =>
    (await metrics(run)).slice(-2).map(({ step, loss, contentLoss }) => [step, loss, contentLoss]);
  expect(await last('parts')).toEqual(await last('whole'));
  expect((await metrics('whole')).at(-1)).toMatchObject({ step: 9, contentLoss: expect.any(Number) });
});

test('a small VGG is trained as a classifier, and its eyes are used', async () => {
  const vgg = ['train-classifier', '--model', 'vgg', '--channels', '2,2,4,4', '--data', at('classes.npz')];
  expect(await cli(...vgg, '--batch', '3', '--epochs', '1', '--out', at('vgg'))).toMatchObject({
    code: 0,
    err: '',
  });
  expect(await train('eyes', 1, '--encoder', at('vgg'))).toMatchObject({ code: 0, err: '' });
  expect((await stat(join(at('eyes'), 'net', 'config.json'))).isFile()).toBe(true);
  const { tensors } = await readSafetensors(join(at('eyes'), 'net', 'model.safetensors'));
  expect(tensors.get('encoder.conv3_1.weight')?.shape).toEqual([4, 2, 3, 3]);
});

test('a net that gives pictures back begins one that paints', async () => {
  const flags = ['--objective', 'reconstruction', '--channels', '6,6,8,8'];
  const rest = [...data(), ...rates, '--steps', '1', '--learning-rate', '0.001'];
  expect(await cli('train-style', ...rest, ...flags, '--out', at('copy'))).toMatchObject({ code: 0, err: '' });
  expect(await cli('train-style', ...rest, '--encoder', at('copy'), '--out', at('paint'))).toMatchObject({
    code: 0,
    err: '',
  });
  const state = async (run: string) => (await readSafetensors(join(at(run), 'net', 'model.safetensors'))).tensors;
  const [copy, paint] = [await state('copy'), await state('paint')];
  expect(paint.get('encoder.conv2_1.weight')?.shape).toEqual(copy.get('encoder.conv2_1.weight')?.shape);
  const worst = (name: string) =>
    (paint.get(name)!.data as Float32Array).reduce(
      (max, x, i) => Math.max(max, Math.abs(x - Number(copy.get(name)!.data[i]))),
      0,
    );
  expect(worst('decoder.conv2_2.weight')).toBeLessThan(0.01); // the decoder goes on from where it was
  expect((await train('narrow', 1, '--objective', 'reconstruction')).err).toContain('expected at least 6');
});

test.each([
  [[], '--content is missing: the picture'],
  [['--content', 'a.png'], '--style is missing: a picture in the style'],
  [['--content', 'a.png', '--style', 'b.png', '--weights', 'x', '--alpha', '2'], '--alpha: expected 0 to 1, got 2'],
  [
    ['--content', 'a.png', '--style', 'b.png', '--weights', 'x', '--style-weights', '1,2'],
    '--style-weights: expected a number of at least 0 for each of 1 styles, not all 0, got 1,2',
  ],
])('stylize %j is refused', async (flags, message) => {
  expect(await cli('stylize', ...flags)).toMatchObject({ code: 2, err: `noisewright: ${message}` });
});

test('train-style names what is wrong', async () => {
  expect((await cli('train-style', '--content', 'x', '--style', 'y')).err).toContain('--out is missing');
  expect((await cli('train-style', '--content', 'x', '--out', at('new'))).err).toContain('--style is missing');
  expect((await train('new', 1, '--channels', '1,2')).err).toContain('--channels: ');
  expect((await train('new', 1, '--encoder', at('toy.npz'))).err).toContain('toy.npz');
  expect((await train('whole', 1)).err).toContain('already holds a training run');
  expect((await train('nan', 4, '--learning-rate', '1e38')).err).toContain('training diverged at step');
});
