import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readSafetensors } from '../io/node/index.js';
import { ImageClassifier } from '../models/index.js';
import { saveClassifier } from '../models/node/index.js';
import { Generator } from '../random/index.js';
import { call, records, writeToy } from './testing.js';

let folder: string;
let data: string;
const at = (name: string) => join(folder, name);
const tiny = '{"modelChannels": 8, "channelMult": [1], "numHeadChannels": 8, "normGroups": 4}';
const trainClassifier = (out: string, ...more: string[]) =>
  call(
    ...['train', '--model', 'noisy-classifier', '--data', data, '--batch', '8', '--model-config', tiny],
    ...['--out', at(out), ...more],
  );

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  data = at('toy.npz');
  await writeToy(data, 48);
  const dit = '{"numLayers": 1, "attentionHeadDim": 8, "patchSize": 4}';
  await call(
    ...['train', '--model', 'dit', '--preset', 'tiny', '--data', data, '--batch', '8', '--model-config', dit],
    ...['--steps', '4', '--warmup', '0', '--learning-rate', '0.02', '--out', at('dit')],
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('a classifier of noisy pictures', () => {
  test('trains, tells its accuracy at each checkpoint, and is resumed', async () => {
    const { code, out, err } = await trainClassifier(
      'clf',
      ...['--steps', '4', '--checkpoint-every', '2', '--log-every', '2', '--json'],
    );
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const kinds = ['step 2', 'checkpoint 2', 'accuracy 2', 'step 4', 'checkpoint 4', 'accuracy 4', 'done 4'];
    expect(records(out).map(({ kind, step }) => `${kind} ${step}`)).toEqual(kinds);
    const lines = (await readFile(join(at('clf'), 'metrics.jsonl'), 'utf8')).trim().split('\n');
    const last = JSON.parse(lines.at(-1)!);
    expect(last).toMatchObject({ step: 4, split: 'test', accuracy: expect.any(Number) });
    expect(last.accuracyByTimestep).toHaveLength(10);
    const resumed = await call('train', '--resume', at('clf'), '--steps', '5');
    expect(resumed.out.join('\n')).toMatch(/continuing after step 4[\s\S]*right about noisy test pictures: \d+%/);
    expect(resumed.out.at(-1)).toContain('--guidance classifier=2 --classifier');
    const info = (await call('info', at('clf'))).out.join('\n');
    for (const part of ['EncoderUNetModel', 'classes of noisy pictures', '0, 1, 2', 'after step 5'])
      expect(info).toContain(part);
  });

  test('guides samples of a model, alone and with others', async () => {
    const sample = (guidance: string, ...more: string[]) =>
      call(
        ...['sample', at('dit'), '--classes', '0,2', '--per-class', '2', '--steps', '3', '--guidance', guidance],
        ...['--out', at('grid.png'), '--save-tensor', at('s.safetensors'), ...more],
      );
    const made = async (guidance: string, ...more: string[]) => {
      expect(await sample(guidance, '--classifier', at('clf'), ...more)).toMatchObject({ code: 0, err: '' });
      return (await readSafetensors(at('s.safetensors'))).tensors.get('samples')!.data;
    };
    const [none, strong] = [await made('classifier=0'), await made('classifier=5')];
    expect(none).not.toEqual(strong);
    expect(await made('cfg=2,classifier=5')).not.toEqual(strong);
    expect(await made('classifier=5,form=mean', '--sampler', 'ddpm')).not.toEqual(strong);
    const mean = await sample('classifier=2,form=mean', '--classifier', at('clf'));
    expect(mean.err).toContain('a gradient can guide the mean of DDPM only');
    expect((await sample('classifier=2')).err).toContain('--guidance: classifier needs one');
    expect((await sample('classifier=2', '--classifier', at('dit'))).err).toContain('train --model noisy-classifier');
  });

  test('is swept beside other guiders', async () => {
    await saveClassifier(at('judge'), new ImageClassifier({ numClasses: 3, layers: [[8, 2]] }, new Generator(0)), {});
    const flags = ['--classifier', at('judge'), '--data', data, '--samples', '12', '--steps', '2', '--guidance', '1,2'];
    const swept = (...more: string[]) =>
      call('sweep', at('dit'), ...flags, '--out', at('sweep.png'), '--json', ...more);
    const { code, out, err } = await swept('--guider', 'cfg,classifier', '--noisy-classifier', at('clf'));
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(records(out).flatMap(({ kind, guidance }) => (kind === 'point' ? [guidance] : []))).toEqual([
      'cfg=1',
      'cfg=2',
      'classifier=1',
      'classifier=2',
    ]);
    expect((await swept('--guider', 'classifier')).err).toContain('--guidance: classifier needs one');
  });

  test('is refused where it does not fit, or is asked for what only a denoiser has', async () => {
    const { err } = await trainClassifier('x', '--learn-variance');
    expect(err).toBe('noisewright: --learn-variance is for models that denoise; leave it out for noisy-classifier');
    await trainClassifier('flow', '--predict', 'flow', '--steps', '1');
    const other = await call('sample', at('dit'), '--guidance', 'classifier=2', '--classifier', at('flow'));
    expect(other.err).toContain('the classifier was trained on other noise (FlowMatchEulerDiscreteScheduler, 1000)');
    await trainClassifier('large', '--size', '12', '--steps', '1');
    const large = await call('sample', at('dit'), '--guidance', 'classifier=2', '--classifier', at('large'));
    expect(large.err).toContain('the classifier is for images [1,12,12], the model makes [1,8,8]');
  });
});
