import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readSafetensors } from '../io/node/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { euler } from '../samplers/index.js';
import { call, writeToy } from './testing.js';

let folder: string;
const at = (...names: string[]) => join(folder, ...names);
const train = (out: string, ...more: string[]) => [
  ...['train', '--model', 'dit', '--preset', 'tiny', '--data', at('toy.npz'), '--batch', '8', '--steps', '2'],
  ...['--model-config', '{"numLayers": 1, "attentionHeadDim": 8, "patchSize": 4}', '--out', at(out), ...more],
];
const samplesOf = async (run: string, ...more: string[]) => {
  const file = at(`${run}.safetensors`);
  const made = await call(
    ...['sample', at(run), '--per-class', '1', '--guidance', 'none', '--steps', '2', '--out', at('a.png')],
    ...['--save-tensor', file, ...more],
  );
  expect(made.err).toBe('');
  return (await readSafetensors(file)).tensors.get('samples')!;
};
const weights = (...run: string[]) => readFile(at(...run, 'transformer', 'diffusion_pytorch_model.safetensors'));

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
  await writeToy(at('toy.npz'), 48);
  expect((await call(...train('teacher', '--predict', 'flow'))).err).toBe('');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('train --path', () => {
  test('is remembered by the run and by its checkpoints, and sampled with any sampler', async () => {
    const flags = ['--predict', 'flow', '--path', 'schrodinger-bridge', '--bridge-sigma', '0.3', '--coupling', 'ot'];
    expect((await call(...train('bridge', ...flags, '--sample-every', '2'))).err).toBe('');
    const [run, checkpoint] = [await samplesOf('bridge'), await samplesOf('bridge/checkpoints/step-0000002')];
    expect(checkpoint.data).toEqual(run.data);
    expect(run.data.every((x) => Number.isFinite(Number(x)))).toBe(true);
    await samplesOf('bridge', '--sampler', 'dpmpp-2m');
    await samplesOf('bridge', '--sampler', 'ode');
    const info = await call('info', at('bridge'));
    expect(info.out.join('\n')).toMatch(/FlowOnPath[\s\S]*schrodinger-bridge/);
  });

  test.each([
    [['--path', 'vp'], '--path goes with --predict flow only'],
    [['--coupling', 'ot'], '--coupling goes with --predict flow only'],
    [['--predict', 'flow', '--path-power', '3'], '--path-power goes with --path polynomial only'],
    [['--predict', 'flow', '--bridge-sigma', '3'], '--bridge-sigma goes with --path schrodinger-bridge only'],
    [['--predict', 'flow', '--path', 'vp', '--flow-weighting', 'cosmap'], '--flow-weighting goes with --path cond-ot'],
  ])('%j', async (flags, message) => {
    const { code, err } = await call(...train('none', ...flags));
    expect([code, err]).toEqual([2, expect.stringContaining(message)]);
  });
});

const stochastic = ['ddpm', 'euler-a', 'kdpm2-a', 'pc'];
const sampled = (run: string, ...more: string[]) =>
  call('sample', at(run), '--per-class', '1', '--guidance', 'none', '--steps', '30', '--out', at('b.png'), ...more);

describe('a flow of coupled pairs', () => {
  test.each(stochastic)('is not sampled with %s', async (sampler) => {
    for (const run of ['bridge', 'bridge/checkpoints/step-0000002']) {
      const { code, err } = await sampled(run, '--sampler', sampler);
      expect([code, err]).toEqual([
        2,
        expect.stringMatching(`--sampler ${sampler} adds noise.*coupled pairs.*flow-euler`),
      ]);
    }
  });

  test('is known by its settings where its folder was written before it said so', async () => {
    await cp(at('bridge'), at('old'), { recursive: true });
    const index = JSON.parse(await readFile(at('old', 'model_index.json'), 'utf8')) as Record<string, unknown>;
    expect(index).toMatchObject({ _coupled_pairs: true });
    await writeFile(at('old', 'model_index.json'), JSON.stringify({ ...index, _coupled_pairs: undefined }));
    expect((await sampled('old', '--sampler', 'euler-a')).err).toContain('coupled pairs');
  });

  test('is refused by eval and sweep, and by a classifier', async () => {
    for (const command of ['eval', 'sweep']) {
      const { code, err } = await call(command, at('bridge'), '--sampler', 'ddpm');
      expect([code, err]).toEqual([2, expect.stringContaining('coupled pairs')]);
    }
    const { code, err } = await sampled('bridge', '--classifier', at('none'));
    expect([code, err]).toEqual([2, expect.stringContaining('a classifier cannot guide this model')]);
  });

  test('is refused by the library', async () => {
    const pipeline = await ClassConditionalPipeline.fromPretrained(at('bridge'));
    const options = { sampler: euler({ predictionType: 'v_prediction' }), plan: { steps: 3, sChurn: 1 }, classes: [0] };
    await expect(pipeline.images(options)).rejects.toThrow('EulerDiscreteScheduler adds noise');
  });

  test.each(stochastic)('pairs at random leave %s alone', async (sampler) => {
    expect((await sampled('teacher', '--sampler', sampler)).err).toBe('');
  });
});

describe('reflow', () => {
  const flags = ['--pairs', '300', '--pair-steps', '2', '--batch', '8', '--steps', '4', '--checkpoint-every', '2'];

  test('draws pairs once, trains on them, and continues bit for bit', async () => {
    const guided = ['--pair-guidance', '2'];
    const made = await call('reflow', at('teacher'), ...flags, ...guided, '--out', at('straight'));
    expect(made.err).toBe('');
    expect(made.out.join('\n')).toContain('--guidance none --steps 2');
    expect(await weights('straight')).not.toEqual(await weights('teacher'));
    await samplesOf('straight');
    expect((await sampled('straight', '--sampler', 'pc')).err).toContain('coupled pairs');

    const [cache] = await readdir(at('straight', 'cache'));
    const files = (await readdir(at('straight', 'cache', cache))).map((name) => at('straight', 'cache', cache, name));
    expect(files).toHaveLength(2);
    const written = async () => (await stat(files[0])).mtimeMs;
    const before = await written();
    const { tensors } = await readSafetensors(files[0]);
    expect(tensors.get('noise')!.shape).toEqual([256, 1, 8, 8]);
    expect(Array.from(tensors.get('labels')!.data.subarray(0, 4), Number)).toEqual([0, 1, 2, 0]);

    await rm(at('straight', 'checkpoints', 'step-0000004'), { recursive: true });
    const whole = await weights('straight');
    expect((await call('reflow', '--resume', at('straight'))).err).toBe('');
    expect(await weights('straight')).toEqual(whole);
    expect(await written()).toBe(before);
    expect((await call('train', '--resume', at('straight'), '--steps', '5')).out.join('\n')).toContain('done: step 5');
  });

  test('can keep the unconditional flow', async () => {
    const made = await call('reflow', at('teacher'), ...flags, '--condition-dropout', '0.5', '--out', at('guidable'));
    expect(made.err).toBe('');
    const [cache] = await readdir(at('guidable', 'cache'));
    const { tensors } = await readSafetensors(at('guidable', 'cache', cache, '00000.safetensors'));
    expect(tensors.get('labels')!.data.some((label) => Number(label) === 3)).toBe(true);
    await samplesOf('guidable', '--guidance', '2');
  });

  test('refuses a teacher of another kind, and one that has changed', async () => {
    await call(...train('noise'));
    const of = async (run: string) => (await call('reflow', at(run), ...flags, '--out', at('none'))).err;
    expect(await of('noise')).toContain('predicts epsilon: reflow begins with a model trained with --predict flow');
    expect(await of('bridge')).toContain('reflow begins with one trained with --path cond-ot');
    await call('train', '--resume', at('teacher'), '--steps', '3');
    expect((await call('reflow', '--resume', at('straight'))).err).toContain('its files have changed');
  });
});
