import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readRaster, readSafetensors } from '../io/node/index.js';
import { ImageClassifier } from '../models/index.js';
import { saveClassifier } from '../models/node/index.js';
import { Generator } from '../random/index.js';
import { trainConfig } from '../training/index.js';
import { call, records, writeToy } from './testing.js';

let folder: string;
let data: string;
let run: string;
const newRun = (steps: number, ...more: string[]) => [
  ...['train', '--model', 'dit', '--preset', 'tiny', '--data', data, '--batch', '8'],
  ...['--model-config', '{"numLayers": 1, "attentionHeadDim": 8, "patchSize": 4}', '--steps', String(steps), ...more],
];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  data = join(folder, 'toy.npz');
  run = join(folder, 'run');
  await writeToy(data, 48);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('wrong use', () => {
  test.each([
    [['train'], '--out is missing'],
    [['train', '--out', 'a'], '--model is missing: one of dit, unet, uvit, dit-variant, noisy-classifier'],
    [['train', '--out', 'a', '--model', 'dit'], '--data is missing'],
    [['train', '--model', 'gan'], 'Allowed choices are dit, unet, uvit, dit-variant, noisy-classifier'],
    [
      ['train', '--out', 'a', '--model', 'dit', '--data', 'x', '--conditioning', 'adaln'],
      '--conditioning is for dit-variant; leave it out for dit',
    ],
    [['train', '--stepz', '3'], 'Did you mean --steps?'],
    [['train', '--steps', 'many'], "--steps: expected a number, got 'many'"],
    [
      ['train', '--out', 'a', '--model', 'dit', '--data', 'x', '--steps', '0'],
      '--steps: expected number to be >0, got 0',
    ],
    [['train', '--out', 'a', '--model', 'dit', '--data', 'x', '--betas', '0.9'], '--betas: '],
    [['train', '--out', 'a', '--model', 'dit', '--data', 'x', '--preset', 'huge'], '--preset: dit has tiny, xxs'],
    [
      ['train', '--out', 'a', '--model', 'dit', '--data', 'x', '--model-config', '3'],
      '--model-config: expected a JSON object',
    ],
    [['train', '--resume', 'a', '--batch', '3'], 'leave out --batch'],
    [
      ['sweep', '--metric', 'fid,beauty'],
      "--metric: expected any of fid, kid, precision, recall, accuracy, got 'beauty'",
    ],
    [['sweep', '--sampler', 'magic'], '--sampler: expected any of ddim, ddpm'],
    [['sweep', '--steps', '5,x'], "--steps: expected numbers parted by commas, got '5,x'"],
    [['sweep', '--steps', '5,0.5'], '--steps: expected whole numbers of at least 1, got 0.5'],
    [['sweep', '--guider', 'cfg=2'], "'cfg=2' has a value for everything"],
    [['sweep', '--guider', 'hope'], '--guidance: '],
    [['sweep', '--out', 'a.jpg'], 'a.jpg must end in .png'],
    [['sample', '--guidance', 'strong'], '--guidance: expected a number, none, or like cfg=3'],
    [['sample', '--guidance', 'cfg=2,interval=0.8:0.2'], '--guidance: interval [0.8, 0.2] must be rising'],
    [['sample', '--animation', 'a.mp4'], '--animation: expected a .gif or .webp file'],
    [['bench', 'gan-train'], 'Allowed choices are dit-train'],
    [['demo', '--minutes', '-1'], '--minutes: expected a number above 0'],
    [['export'], '--onnx is missing'],
    [['paint'], "unknown command 'paint'"],
  ])('%j', async (args, message) => {
    const { code, out, err } = await call(...args);
    expect(err).toContain(message);
    expect(code).toBe(2);
    expect(out).toEqual([]);
  });

  test('what cannot be done is told in one line, and to machines as a record', async () => {
    const { code, out, err } = await call('info', join(folder, 'none'), '--json');
    expect(code).toBe(1);
    expect(err).toMatch(/^noisewright: cannot read .*none.model_index.json: no such file or folder: check the path$/);
    expect(records(out)).toMatchObject([{ kind: 'error', exitCode: 1 }]);
  });
});

test('every command explains itself, with examples and exit codes; every field of a run is a flag', async () => {
  const { code, out } = await call('--help');
  expect(code).toBe(0);
  const commands = ['train', 'sample', 'eval', 'bench', 'info', 'export', 'demo', 'train-classifier'];
  for (const command of commands) {
    expect(out.join()).toContain(`  ${command} `);
    const help = (await call(command, '--help')).out.join('\n');
    expect(help).toContain(`Examples:\n  $ noisewright ${command}`);
    expect(help).toContain('130  interrupted');
  }
  const help = (await call('train', '--help')).out.join('\n');
  for (const field of Object.keys(trainConfig.shape))
    expect(help).toContain(`  --${field.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} `);
  expect((await call('--version')).out[0]).toMatch(/^\d+\.\d+\.\d+$/);
});

describe('a run', () => {
  test('trains, with checkpoints and previews', async () => {
    const flags = ['--checkpoint-every', '3', '--log-every', '2', '--sample-every', '4', '--out', run, '--json'];
    const { code, out } = await call(...newRun(4, ...flags));
    expect(code).toBe(0);
    const kinds = records(out).map(({ kind, step }) => `${kind} ${step}`);
    expect(kinds).toEqual(['step 2', 'checkpoint 3', 'step 4', 'checkpoint 4', 'preview 4', 'done 4']);
    expect((await readRaster(join(run, 'samples', 'step-0000004.png'))).height).toBe(3 * 66 + 2);
  });

  test('is not overwritten, but resumed', async () => {
    expect((await call(...newRun(4, '--out', run))).err).toContain('already holds a training run');
    const done = await call('train', '--resume', run);
    expect(done.out.join()).toContain('has all its 4 steps');
    const { out } = await call('train', '--resume', run, '--steps', '6', '--json');
    expect(records(out).at(-1)).toMatchObject({ kind: 'done', step: 6 });
  });

  test('stops at Ctrl-C after a whole step, saves, and says how to go on', async () => {
    const other = join(folder, 'other run');
    const going = call(...newRun(100_000, '--out', other));
    const started = async () => (await stat(join(other, 'metrics.jsonl')).catch(() => undefined))?.size ?? 0;
    while ((await started()) === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    process.emit('SIGINT');
    const { code, out } = await going;
    expect(code).toBe(130);
    expect(out.at(-1)).toMatch(/stopped after step \d+; continue with:\n {2}.*train --resume '.*other run'$/);
    const step = Number(/step (\d+)/.exec(out.at(-1)!)?.[1]);
    const { out: resumed } = await call('train', '--resume', other, '--steps', String(step + 1));
    expect(resumed.join()).toContain(`continuing after step ${step}`);
  });

  test('that diverges ends with its own exit code', async () => {
    const flags = ['--learning-rate', '1e30', '--warmup', '0', '--out', join(folder, 'wild')];
    const { code, err } = await call(...newRun(50, ...flags));
    expect(code).toBe(3);
    expect(err).toMatch(/training diverged at step \d+: .* Lower the learning rate/);
  });

  test('is sampled: grid, tensor, trajectory and animation', async () => {
    const path = (name: string) => join(folder, name);
    const files = [
      '--out',
      'grid.png',
      '--save-tensor',
      's.safetensors',
      '--trajectory',
      't.png',
      '--animation',
      'a.gif',
    ];
    const { code, out } = await call(
      ...['sample', run, '--classes', '2,0', '--per-class', '3', '--steps', '3', '--json'],
      ...files.map((word) => (word.startsWith('--') ? word : path(word))),
    );
    expect(code).toBe(0);
    expect(records(out)).toMatchObject([
      { kind: 'samples', sampler: 'ddim', labels: [2, 0], files: { grid: path('grid.png') } },
    ]);
    const { tensors } = await readSafetensors(path('s.safetensors'));
    expect(tensors.get('samples')!.shape).toEqual([6, 1, 8, 8]);
    expect([...tensors.get('classes')!.data]).toEqual([2n, 2n, 2n, 0n, 0n, 0n]);
    const grid = await readRaster(path('grid.png'));
    expect(grid.height).toBe(2 * 66 + 2);
    for (const name of ['t.png', 'a.gif']) expect((await readRaster(path(name))).width).toBeGreaterThan(3 * 66);
  });

  test('refuses classes and samplers it does not have', async () => {
    const { err } = await call('sample', run, '--classes', '3');
    expect(err).toContain("--classes: expected all, numbers 0..2 or names (0, 1, 2), got '3'");
    expect((await call('sample', run, '--sampler', 'flow-euler')).err).toContain('this model predicts epsilon');
  });

  test('tells about itself', async () => {
    const { out } = await call('info', run);
    const text = out.join('\n');
    for (const part of ['DiTTransformer2DModel', 'predicts', 'learningRate', 'step    loss', 'loss  '])
      expect(text).toContain(part);
    const [record] = records((await call('info', run, '--json')).out);
    expect(record).toMatchObject({
      kind: 'info',
      predicts: 'epsilon',
      config: { steps: 6 },
      metrics: [{ step: 2 }, { step: 4 }, { step: 6 }],
    });
  });

  test('is exported for any number of pictures', async () => {
    const onnx = join(folder, 'denoiser.onnx');
    expect((await call('export', run, '--onnx', onnx)).code).toBe(0);
    const session = await ort.InferenceSession.create(await readFile(onnx));
    for (const n of [1, 3]) {
      const { prediction } = await session.run({
        sample: new ort.Tensor('float32', new Generator(0).randn([n, 1, 8, 8]).data, [n, 1, 8, 8]),
        timestep: new ort.Tensor('float32', new Float32Array(n).fill(500), [n]),
        class_labels: new ort.Tensor('int64', new BigInt64Array(n).fill(3n), [n]),
      });
      expect(prediction.dims).toEqual([n, 1, 8, 8]);
    }
    await session.release();
  });

  test('is judged by a classifier', async () => {
    const judge = join(folder, 'judge');
    const classifier = new ImageClassifier({ numClasses: 3, layers: [[8, 2]] }, new Generator(0));
    await saveClassifier(judge, classifier, {});
    const flags = ['--samples', '24', '--steps', '2', '--batch', '16', '--classifier', judge];
    const { code, out } = await call('eval', run, ...flags, '--json');
    expect(code).toBe(0);
    const [{ generated, real }] = records(out) as { generated: Record<string, number>; real: Record<string, number> }[];
    expect(Object.keys(generated)).toEqual(['fid', 'kid', 'precision', 'recall', 'accuracy']);
    for (const value of Object.values({ ...generated, ...real })) expect(value).toBeTypeOf('number');
    expect(real.fid).toBeLessThan(generated.fid);
    const text = (await call('eval', run, ...flags)).out.join('\n');
    expect(text).toMatch(/samples {2}24 real test pictures\nFID/);
  });

  test('is swept over guidance scales, and goes on from what is known', async () => {
    const judge = join(folder, 'sweep-judge');
    await saveClassifier(judge, new ImageClassifier({ numClasses: 3, layers: [[8, 2]] }, new Generator(0)), {});
    const flags = ['--samples', '24', '--steps', '2', '--batch', '16', '--classifier', judge];
    const out = join(folder, 'sweep.png');
    const more = ['--metric', 'fid,accuracy,precision,recall', '--seed', '1', '--out', out];
    const first = await call('sweep', run, ...flags, '--guidance', '2,1', ...more, '--json');
    expect(first).toMatchObject({ code: 0, err: '' });
    expect(records(first.out)).toMatchObject([
      { kind: 'point', guidance: 'cfg=1', scale: 1, sampler: 'ddim', steps: 2 },
      { kind: 'point', guidance: 'cfg=2', scale: 2, sampler: 'ddim', steps: 2 },
      { kind: 'sweep', guidance: '2,1', out, real: { fid: expect.any(Number) } },
    ]);
    const alone = await call('eval', run, ...flags, '--guidance', '2', '--seed', '1', '--json');
    expect(records(first.out)[1]).toMatchObject(records(alone.out)[0].generated as object);
    const small = await readRaster(out);
    const wider = await call('sweep', run, ...flags, '--guidance', '0,1,2', ...more);
    expect(wider.out[0]).toMatch(/^2 of 3 points are known from .*sweep.points.safetensors$/);
    const drawn = await readRaster(out); // pictures and curves may now lie beside each other
    expect(drawn.width * drawn.height).not.toBe(small.width * small.height);
    const reseeded = await call('sweep', run, ...flags, '--guidance', '1', '--seed', '2', '--out', out);
    expect(reseeded.out.join('\n')).not.toContain('known');
  });
});

test('a classifier is trained', async () => {
  const out = join(folder, 'classifier');
  const { code, out: lines } = await call(
    'train-classifier',
    '--data',
    data,
    '--epochs',
    '1',
    '--batch',
    '16',
    '--out',
    out,
  );
  expect(code).toBe(0);
  expect(lines.join('\n')).toMatch(/% of 48 test pictures are right/);
  expect(JSON.parse(await readFile(join(out, 'training.json'), 'utf8')).command).toContain('train-classifier --data');
});
