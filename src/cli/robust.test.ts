import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { blankRaster } from '../io/index.js';
import { pathExists, savePng } from '../io/node/index.js';
import { cli, writeToy } from './testing.js';

let folder: string;
let run: string;
const at = (...names: string[]): string => join(folder, ...names);
const newRun = (out: string, ...more: string[]): string[] => [
  ...['train', '--model', 'dit', '--preset', 'tiny', '--data', at('toy.npz'), '--batch', '4', '--threads', '1'],
  ...['--model-config', '{"numLayers": 1, "attentionHeadDim": 8, "patchSize": 4}', '--out', out, ...more],
];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  await writeToy(at('toy.npz'), 8, 2);
  run = at('run');
  expect((await cli(...newRun(run, '--steps', '4', '--checkpoint-every', '2'))).code).toBe(0);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A copy of the run, to be damaged. */
async function copy(name: string): Promise<string> {
  await cp(run, at(name), { recursive: true });
  return at(name);
}

describe('a run that cannot begin', () => {
  test.each([
    [['--predict', 'flow', '--min-snr-gamma', '5'], '--min-snr-gamma goes with --predict epsilon, x0 or v only'],
    [['--timestep-density', 'uniform'], '--timestep-density goes with --predict flow only'],
    [['--momentum', '0.5'], '--momentum goes with --optimizer sgd only'],
  ])('says that a flag would do nothing: %j', async (flags, message) => {
    expect(await cli(...newRun(at('idle'), ...flags))).toMatchObject({ code: 2, err: `noisewright: ${message}` });
    expect(await pathExists(at('idle'))).toBe(false);
  });

  test('leaves its folder free for a better try', async () => {
    const { code, err } = await cli(...newRun(at('large'), '--batch', '9'));
    expect(err).toContain('8 images, fewer than one batch of 9');
    expect(code).toBe(1);
    expect((await cli(...newRun(at('large'), '--steps', '1'))).code).toBe(0);
  });

  test('names pictures that cannot be read, and leaves them out only when told to', async () => {
    const pictures = at('pictures');
    for (const name of ['a/1.png', 'a/2.png', 'b/3.png', 'b/4.png'])
      await savePng(join(pictures, name), blankRaster(8, 8, 1, 9));
    await truncate(join(pictures, 'b/4.png'), 20);
    const flags = ['--data', pictures, '--size', '8', '--steps', '1', '--batch', '3'];
    const { code, err } = await cli(...newRun(at('folder')), ...flags);
    expect(err).toMatch(/1 of 4 pictures cannot be read .*\n.*4\.png: not a readable picture/);
    expect(code).toBe(1);
    const { out } = await cli(...newRun(at('folder')), ...flags, '--skip-corrupt');
    expect(out).toMatch(/3 pictures of 3x8x8 in 2 classes\nleft out: cannot read .*4\.png: not a readable picture/);
  });

  test('names a folder that cannot be made', async () => {
    await writeFile(at('file'), '');
    for (const args of [newRun(at('file')), ['demo', '--out', at('file')], ['train-classifier', '--out', at('file')]]) {
      const { code, err } = await cli(...args);
      expect(err).toMatch(/^noisewright: cannot write .*file.*: part of the path is a file, not a folder/);
      expect(code).toBe(1);
    }
  });
});

describe('a run in use', () => {
  test('is not trained by another process', async () => {
    const used = await copy('used');
    const settings = await readFile(join(used, 'run.json'), 'utf8');
    const going = cli('train', '--resume', used, '--steps', '100000');
    while (!(await pathExists(join(used, 'train.lock')))) await new Promise((resolve) => setTimeout(resolve, 5));
    const { code, err } = await cli('train', '--resume', used, '--steps', '6');
    expect(err).toContain(`the run ${used} is in use by process ${process.pid}`);
    expect(code).toBe(1);
    process.emit('SIGINT');
    expect((await going).code).toBe(130);
    expect(await pathExists(join(used, 'train.lock'))).toBe(false);
    expect(JSON.parse(await readFile(join(used, 'run.json'), 'utf8'))).toEqual({
      ...JSON.parse(settings),
      steps: 100_000,
    });
  });

  test('saves when Ctrl-C comes in the middle of a preview', async () => {
    const going = cli(...newRun(at('seen'), '--steps', '1000', '--sample-every', '1', '--log-every', '1'));
    const metrics = at('seen', 'metrics.jsonl');
    while ((await stat(metrics).catch(() => ({ size: 0 }))).size === 0)
      await new Promise((resolve) => setTimeout(resolve, 5));
    process.emit('SIGINT');
    const { code, out, err } = await going;
    expect([code, err]).toEqual([130, '']);
    const step = Number(/stopped after step (\d+)/.exec(out)?.[1]);
    expect(await readdir(at('seen', 'checkpoints'))).toEqual([`step-${String(step).padStart(7, '0')}`]);
  });
});

describe('a damaged run', () => {
  test('names the checkpoint, and the one before it', async () => {
    const damaged = await copy('damaged');
    const last = join(damaged, 'checkpoints', 'step-0000004');
    await truncate(join(last, 'training.safetensors'), 2000);
    const { code, err } = await cli('train', '--resume', damaged, '--steps', '6');
    expect(err).toMatch(
      /training.safetensors: safetensors: .*cut short.*; remove .*step-0000004 to continue from step-0000002$/,
    );
    expect(code).toBe(1);
    await rm(last, { recursive: true });
    await mkdir(join(damaged, 'checkpoints', '.step-0000003.1-00000000.tmp')); // a process killed while it saved
    expect((await cli('train', '--resume', damaged, '--steps', '3')).out).toContain('continuing after step 2');
    expect(await readdir(join(damaged, 'checkpoints'))).toEqual(['step-0000002', 'step-0000003']);
  });

  test('without checkpoints keeps its weights', async () => {
    const exported = await copy('exported');
    await rm(join(exported, 'checkpoints'), { recursive: true });
    const weights = await readFile(join(exported, 'transformer', 'diffusion_pytorch_model.safetensors'));
    const { code, err } = await cli('train', '--resume', exported, '--steps', '6');
    expect(err).toContain('there are weights, but no checkpoint to continue from');
    expect(code).toBe(1);
    expect(await readFile(join(exported, 'transformer', 'diffusion_pytorch_model.safetensors'))).toEqual(weights);
  });

  test.each(['info', 'sample', 'eval', 'export'])('%s names the file', async (command) => {
    const damaged = await copy(`damaged-${command}`);
    await truncate(join(damaged, 'transformer', 'diffusion_pytorch_model.safetensors'), 100);
    const { code, err } = await cli(command, damaged, ...(command === 'export' ? ['--onnx', at('x.onnx')] : []));
    expect(err).toMatch(/^noisewright: cannot read .*diffusion_pytorch_model.safetensors: safetensors: .*cut short/);
    expect(code).toBe(1);
  });

  test('sample writes no pictures that are none, and under no wrong name', async () => {
    const flags = ['sample', run, '--steps', '2', '--per-class', '1', '--threads', '1'];
    const { code, err } = await cli(...flags, '--guidance', '1e999', '--out', at('wild.png'));
    expect(err).toContain('sampling ended in numbers that are not finite: lower the guidance scale');
    expect([code, await pathExists(at('wild.png'))]).toEqual([1, false]);
    for (const [flag, value] of Object.entries({ out: 'a.jpg', trajectory: 'a.gif', animation: 'a.png', seed: '1e30' }))
      expect((await cli(...flags, `--${flag}`, at(value))).err).toContain(`--${flag}: expected a `);
    const nowhere = await cli(...flags, '--out', at('toy.npz', 'a.png'));
    expect(nowhere.err).toMatch(/cannot write .*toy.npz: part of the path is a file/);
  });

  test('info names settings that cannot be read', async () => {
    const damaged = await copy('settings');
    await writeFile(join(damaged, 'run.json'), '{');
    expect((await cli('info', damaged)).err).toMatch(/cannot read .*run.json: not valid JSON/);
  });
});

test('a classifier is not written over what is there, nor trained into nonsense', async () => {
  const flags = ['train-classifier', '--data', at('toy.npz'), '--epochs', '2', '--batch', '4', '--threads', '1'];
  expect((await cli(...flags, '--out', folder)).err).toContain('is not empty');
  expect(await pathExists(at('toy.npz'))).toBe(true);
  expect((await cli(...flags, '--out', at('c'), '--learning-rate', '0')).err).toContain(
    'expected a number above 0, got 0',
  );
  const wild = await cli(...flags, '--out', at('c'), '--learning-rate', '1e38');
  expect([wild.code, wild.err]).toEqual([3, expect.stringContaining('training diverged at step')]);
});

test('wrong use and interruption are records, too', async () => {
  const wrong = await cli('paint', '--json');
  expect(JSON.parse(wrong.out)).toEqual({ kind: 'error', message: "unknown command 'paint'", exitCode: 2 });
  const flags = [
    '--data',
    at('toy.npz'),
    '--epochs',
    '100000',
    '--batch',
    '4',
    '--threads',
    '1',
    '--out',
    at('stopped'),
  ];
  const before = process.listenerCount('SIGINT');
  const going = cli('train-classifier', ...flags, '--json');
  while (process.listenerCount('SIGINT') === before) await new Promise((resolve) => setTimeout(resolve, 5));
  process.emit('SIGINT');
  const { code, out, err } = await going;
  expect([code, err]).toEqual([130, 'noisewright: interrupted']);
  expect(JSON.parse(out.split('\n').at(-1)!)).toEqual({ kind: 'error', message: 'interrupted', exitCode: 130 });
});
