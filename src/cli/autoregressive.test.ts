import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { readSafetensors, writeNpz } from '../io/node/index.js';
import { autoregressiveNames } from '../models/index.js';
import { AutoregressiveRun } from '../training/node/index.js';
import { call, records } from './testing.js';

let folder: string;
let data: string;
const at = (name: string) => join(folder, name);
const train = (model: string, out: string, ...more: string[]) =>
  call(
    ...['train-autoregressive', '--model', model, '--preset', 'tiny', '--data', data, '--batch', '8'],
    ...['--warmup', '0', '--out', at(out), '--json', ...more],
  );

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  data = at('bars.npz');
  // Class c: the c-th pair of rows is white.
  const images = ndarray(
    Uint8Array.from({ length: 48 * 36 }, (_, i) => 255 * Number(Math.floor((i % 36) / 12) === Math.floor(i / 36) % 3)),
    [48, 6, 6],
    'uint8',
  );
  const labels = ndarray(
    Uint8Array.from({ length: 48 }, (_, i) => i % 3),
    [48],
    'uint8',
  );
  await writeNpz(data, { images, labels, images_test: images, labels_test: labels });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('autoregressive models', () => {
  test.each(autoregressiveNames)(
    '%s: trains, tells its likelihood at each checkpoint, is resumed, and draws',
    async (model) => {
      const all = await train(model, `${model}-4`, '--steps', '4', '--checkpoint-every', '2', '--log-every', '2');
      expect(all.err).toBe('');
      const kinds = ['step 2', 'checkpoint 2', 'likelihood 2', 'step 4', 'checkpoint 4', 'likelihood 4', 'done 4'];
      expect(records(all.out).map(({ kind, step }) => `${kind} ${step}`)).toEqual(kinds);
      const lines = (await readFile(join(at(`${model}-4`), 'metrics.jsonl'), 'utf8')).trim().split('\n');
      expect(JSON.parse(lines.at(-1)!)).toMatchObject({ step: 4, split: 'test', images: 48 });

      await train(model, `${model}-2`, '--steps', '2', '--log-every', '2');
      await call('train-autoregressive', '--resume', at(`${model}-2`), '--steps', '4', '--json');
      const [whole, resumed] = await Promise.all(
        [4, 2].map((n) => readSafetensors(join(at(`${model}-${n}`), 'distribution', 'model.safetensors'))),
      );
      expect(resumed.tensors).toEqual(whole.tensors);

      const png = at(`${model}.png`);
      const drawn = await call('sample-autoregressive', at(`${model}-4`), '--complete', '--rows', '2', '--out', png);
      expect(drawn).toMatchObject({ code: 0, err: '' });
      expect((await readFile(png)).length).toBeGreaterThan(100);
    },
    30_000,
  );

  test('one model of pictures and labels draws classes and classifies', async () => {
    const more = [
      '--labels',
      '--steps',
      '150',
      '--learning-rate',
      '0.02',
      '--ema-decay',
      '0.9',
      '--checkpoint-every',
      '150',
    ];
    const { out } = await train('made', 'joint', ...more);
    const report = records(out).find(({ kind }) => kind === 'likelihood')!;
    expect(report.accuracy).toBe(1);
    // Three pictures, equally often: log p(x) = -log 3 at best, and the label adds nothing to it.
    expect(report.logLikelihood).toBeGreaterThan(-1.8);
    expect(report.logLikelihood).toBeLessThan(-1);
    expect(report.jointLogLikelihood).toBeLessThanOrEqual(report.logLikelihood as number);
    const drawn = await call(
      'sample-autoregressive',
      at('joint'),
      '--classes',
      '0,2',
      '--out',
      at('joint.png'),
      '--json',
    );
    expect(records(drawn.out)).toMatchObject([{ kind: 'samples', labels: [0, 2], rows: 2, columns: 8 }]);
    expect((await call('sample-autoregressive', at('joint'), '--complete', '--out', at('half.png'))).code).toBe(0);
  }, 30_000);

  test('an interrupted training saves and can go on', async () => {
    const run = await AutoregressiveRun.create({ model: 'fvbn', data, batch: 8, steps: 100, warmup: 0 }, at('stopped'));
    const stop = new AbortController();
    const kinds: string[] = [];
    for await (const event of run.run(stop.signal)) {
      kinds.push(`${event.kind} ${event.step}`);
      if (event.step === 3) stop.abort();
    }
    await run.release();
    expect(kinds).toEqual(['step 1', 'step 2', 'step 3', 'checkpoint 3']);
    expect((await AutoregressiveRun.resume(at('stopped'))).session.step).toBe(3);
  });

  test('what makes no sense is named', async () => {
    expect((await call('train-autoregressive', '--data', data, '--out', at('x'))).err).toContain('--model is missing');
    expect((await call('train-autoregressive', '--model', 'made', '--out', at('x'))).err).toContain(
      '--data is missing',
    );
    const odd = await call('sample-autoregressive', at('fvbn-4'), '--classes', '0');
    expect(odd).toMatchObject({ code: 2, err: expect.stringContaining('knows no classes') });
    const both = await call('sample-autoregressive', at('joint'), '--classes', '0', '--complete');
    expect(both.err).toContain('do not go together');
    expect((await call('sample-autoregressive', at('none'))).err).toMatch(/cannot read .*config\.json/);
  });
});
