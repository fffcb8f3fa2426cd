import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { readSafetensors, writeNpz } from '../io/node/index.js';
import { flowNames } from '../pipelines/index.js';
import { FlowRun } from '../pipelines/node/index.js';
import { call, records } from './testing.js';

let folder: string;
let data: string;
const at = (name: string) => join(folder, name);
const train = (model: string, out: string, ...more: string[]) =>
  call(
    ...['train', '--model', model, '--preset', 'tiny', '--data', data, '--batch', '8', '--warmup', '0'],
    ...['--out', at(out), '--json', ...more],
  );

/** Two bright rows at a place that is drawn, on dark ground. */
const bars = (side: number, channels = 1) => ({
  images: ndarray(
    Uint8Array.from({ length: 48 * channels * side * side }, (_, i) => {
      const [picture, row] = [Math.floor(i / (channels * side * side)), Math.floor((i % (side * side)) / side)];
      return (row >> 1) % 3 === picture % 3 ? 230 + ((7 * i) % 20) : (11 * i) % 17;
    }),
    [48, channels, side, side],
    'uint8',
  ),
  labels: ndarray(new Uint8Array(48), [48], 'uint8'),
});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  data = at('bars.npz');
  const { images, labels } = bars(8);
  await writeNpz(data, { images, labels, images_test: images, labels_test: labels });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('flows of images', () => {
  test.each(flowNames)(
    '%s: trains, tells its bits at each checkpoint, is resumed bit for bit, inverts and draws',
    async (model) => {
      const all = await train(model, `${model}-4`, '--steps', '4', '--checkpoint-every', '2', '--log-every', '2');
      expect(all.err).toBe('');
      const kinds = ['step 2', 'checkpoint 2', 'likelihood 2', 'step 4', 'checkpoint 4', 'likelihood 4', 'done 4'];
      expect(records(all.out).map(({ kind, step }) => `${kind} ${step}`)).toEqual(kinds);
      const lines = (await readFile(join(at(`${model}-4`), 'metrics.jsonl'), 'utf8')).trim().split('\n');
      expect(JSON.parse(lines.at(-1)!)).toMatchObject({ step: 4, split: 'test', images: 48 });

      await train(model, `${model}-2`, '--steps', '2', '--log-every', '2');
      await call('train', '--resume', at(`${model}-2`), '--steps', '4', '--json');
      const [whole, resumed] = await Promise.all(
        [4, 2].map((n) => readSafetensors(join(at(`${model}-${n}`), 'flow', 'model.safetensors'))),
      );
      expect(resumed.tensors).toEqual(whole.tensors);

      const judged = await call('eval', at(`${model}-4`), '--samples', '48', '--json');
      expect(judged.err).toBe('');
      const report = records(judged.out).at(-1) as { bitsPerDim: number; inversionError: { largest: number } };
      expect(report.bitsPerDim).toBe(JSON.parse(lines.at(-1)!).bitsPerDim);
      expect(report.inversionError.largest).toBeLessThan(model === 'ffjord' ? 1e-2 : 1e-4);

      const png = at(`${model}.png`);
      const drawn = await call(
        'sample-flow',
        at(`${model}-4`),
        '--temperature',
        '0.5,1',
        '--columns',
        '3',
        '--out',
        png,
      );
      expect(drawn).toMatchObject({ code: 0, err: '' });
      expect((await readFile(png)).length).toBeGreaterThan(100);
    },
    30_000,
  );

  test('training lowers the bits, with averaged weights, and info shows it', async () => {
    const more = ['--steps', '60', '--learning-rate', '0.01', '--checkpoint-every', '30', '--ema-decay', '0.9'];
    const { out } = await train('maf', 'longer', ...more);
    const [first, last] = records(out).filter(({ kind }) => kind === 'likelihood') as { bitsPerDim: number }[];
    expect(last.bitsPerDim).toBeLessThan(first.bitsPerDim - 0.1);
    const info = await call('info', at('longer'));
    expect(info).toMatchObject({ code: 0, err: '' });
    expect(info.out.join('\n')).toContain(`${last.bitsPerDim.toFixed(3)} bits per dimension`);
  }, 30_000);

  test('the way between two pictures begins and ends with them', async () => {
    const way = await call(
      ...['sample-flow', at('longer'), '--interpolate', at('maf.png'), at('maf.png'), '--columns', '4'],
      ...['--out', at('way.png')],
    );
    expect(way).toMatchObject({ code: 0, err: '' });
  }, 30_000);

  test('an interrupted training saves and can go on', async () => {
    const settings = { model: 'nice', modelConfig: { hiddenLayers: 1, hiddenFeatures: 8 }, data, batch: 8 } as const;
    const run = await FlowRun.create({ ...settings, steps: 100, warmup: 0 }, at('stopped'));
    const stop = new AbortController();
    const kinds: string[] = [];
    for await (const event of run.run(stop.signal)) {
      kinds.push(`${event.kind} ${event.step}`);
      if (event.step === 3) stop.abort();
    }
    await run.release();
    expect(kinds).toEqual(['step 1', 'step 2', 'step 3', 'checkpoint 3']);
    expect((await FlowRun.resume(at('stopped'))).session.step).toBe(3);
  });

  test('a training that diverges stops, and saves nothing of it', async () => {
    const { code, err } = await train('nice', 'diverged', '--steps', '40', '--learning-rate', '1e30');
    expect(code).toBe(3);
    expect(err).toContain('training diverged at step');
  });

  test('what makes no sense is named', async () => {
    const odd = at('odd.npz');
    const { images, labels } = bars(7);
    await writeNpz(odd, { images, labels });
    const on = (model: string, ...more: string[]) => train(model, 'x', '--data', odd, ...more);
    expect((await on('nice')).err).toContain('NICE: 49 features, expected an even number');
    expect((await on('glow')).err).toContain('Glow: images of 7 x 7, expected multiples of 2 for 1 levels');
    expect((await train('glow', 'x', '--predict', 'v')).err).toContain('--predict is not for glow');
    expect((await train('dit', 'x', '--labels')).err).toContain('--labels is not for dit');
    expect((await train('glow', 'x', '--preset', 'xl')).err).toContain('--preset: glow has tiny, xs, full');
    expect((await train('glow', 'x', '--model-config', '{"alpha": 0.5}')).err).toContain('alpha');
    expect((await call('sample', at('nice-4'))).err).toContain("a run of kind 'flow': draw with sample-flow");
    expect((await call('sample-flow', at('none'))).err).toContain('no flow here');
    expect((await call('sample-flow', at('nice-4'), '--temperature', '-1')).err).toContain(
      'expected numbers from 0 on',
    );
    expect((await call('sample-flow', at('nice-4'), '--interpolate', 'mnist:1')).err).toContain(
      'two pictures for a row',
    );
    expect((await call('sample-flow', at('nice-4'), '--solver-steps', '4')).err).toContain(
      'solver steps are of ffjord',
    );
  }, 30_000);
});
