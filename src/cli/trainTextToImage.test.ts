import { cp, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readRaster, readSafetensors, savePng } from '../io/node/index.js';
import { ControlNet } from '../models/index.js';
import { loadComponent } from '../models/node/index.js';
import { loadTextToImage } from '../pipelines/node/index.js';
import { cli } from './testing.js';

let root: string;
const at = (...names: string[]): string => join(root, ...names);
const command = 'train-text-to-image';
const small = ['--batch', '4', '--threads', '1', '--warmup', '0', '--log-every', '1'];
const colours = { red: [220, 30, 30], green: [30, 200, 30], blue: [30, 30, 220] } as const;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const lines: string[] = [];
  for (const [name, colour] of Object.entries(colours))
    for (const [i, shape] of ['square', 'bar'].entries()) {
      const data = Uint8Array.from({ length: 16 * 16 * 3 }, (_, at) => {
        const [x, y] = [Math.floor(at / 3) % 16, Math.floor(at / 48)];
        const inside = x > 3 && x < 12 && (i === 1 || (y > 3 && y < 12));
        return inside ? colour[at % 3] : 255;
      });
      await savePng(at('data', `${name}-${i}.png`), { width: 16, height: 16, channels: 3, data });
      lines.push(JSON.stringify({ file_name: `${name}-${i}.png`, text: `${name} ${shape}` }));
    }
  await writeFile(at('data', 'metadata.jsonl'), lines.join('\n'));
  const vae = ['train-vae', '--data', at('data'), '--size', '16', '--preset', 'tiny', '--out', at('vae'), ...small];
  expect(await cli(...vae, '--steps', '20', '--learning-rate', '0.01')).toMatchObject({ code: 0, err: '' });
  const scratch = ['--preset', 'tiny', '--vae', at('vae'), '--data', at('data'), '--vocabulary', '530'];
  expect(await cli(command, ...scratch, ...small, '--steps', '4', '--out', at('base'))).toMatchObject({
    code: 0,
    err: '',
  });
}, 120_000);
afterAll(() => rm(root, { recursive: true, force: true }));

const fromBase = (out: string, ...more: string[]) =>
  cli(command, '--model', at('base'), '--data', at('data'), ...small, '--out', at(out), ...more);
const losses = async (run: string): Promise<number[]> =>
  (await readFile(at(run, 'metrics.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { loss: number }).loss);

describe('train-vae', () => {
  it('learns, and sets the scale of the latents', async () => {
    const [first, last] = [(await losses('vae'))[0], (await losses('vae')).at(-1)!];
    expect(last).toBeLessThan(0.6 * first);
    const config = JSON.parse(await readFile(at('vae', 'vae', 'config.json'), 'utf8'));
    expect(config.scaling_factor).toBeGreaterThan(0.1);
    expect(config.scaling_factor).not.toBe(0.18215);
  });

  it('continues bit for bit', async () => {
    const args = ['train-vae', '--data', at('data'), '--size', '16', '--preset', 'tiny', ...small];
    await cli(...args, '--steps', '4', '--out', at('vae-whole'));
    await cli(...args, '--steps', '2', '--out', at('vae-part'));
    await cli('train-vae', '--resume', at('vae-part'), '--steps', '4');
    const [whole, part] = ['vae-whole', 'vae-part'].map((run) =>
      at(run, 'checkpoints/step-0000004/training.safetensors'),
    );
    expect(await readFile(part)).toEqual(await readFile(whole));
  });
});

describe('train-text-to-image', () => {
  it('writes a system that opens and makes pictures', async () => {
    const { parts } = await loadTextToImage(at('base'));
    expect(parts.sampler.config).toMatchObject({ clipSample: false });
    const out = at('picture.png');
    const made = await cli('generate', 'red bar', '--model', at('base'), '--steps', '2', '--out', out);
    expect(made).toMatchObject({ code: 0, err: '' });
    expect(await readRaster(out)).toMatchObject({ width: 16, height: 16 });
    expect((await readdir(at('base'))).sort()).toEqual([
      'cache',
      'checkpoints',
      'metrics.jsonl',
      'model_index.json',
      'run.json',
      'scheduler',
      'text_encoder',
      'tokenizer',
      'unet',
      'vae',
    ]);
  });

  it('continues bit for bit, from caches that are made once', async () => {
    await fromBase('whole', '--steps', '4');
    await fromBase('part', '--steps', '2');
    const caches = await readdir(at('part', 'cache'));
    const made = () => Promise.all(caches.map(async (name) => (await stat(at('part', 'cache', name))).mtimeMs));
    const before = await made();
    const resumed = await cli(command, '--resume', at('part'), '--steps', '4');
    expect(resumed).toMatchObject({ code: 0, err: '' });
    expect(await readdir(at('part', 'cache'))).toEqual(caches);
    expect(await made()).toEqual(before);
    const [whole, part] = ['whole', 'part'].map((run) => at(run, 'checkpoints/step-0000004/training.safetensors'));
    expect(await readFile(part)).toEqual(await readFile(whole));
    expect((await loadTextToImage(at('part'))).parts.sampler.className).toBe('DDIMScheduler');
  });

  it('lowers the loss', async () => {
    await fromBase('longer', '--steps', '60', '--learning-rate', '0.01', '--ema-decay', '0.9');
    const all = await losses('longer');
    const mean = (list: number[]) => list.reduce((a, b) => a + b) / list.length;
    expect(mean(all.slice(-15))).toBeLessThan(0.9 * mean(all.slice(0, 5)));
  });

  it("writes a LoRA under diffusers' names, which generate takes", async () => {
    expect(await fromBase('lora', '--steps', '2', '--lora-rank', '2', '--learning-rate', '0.1')).toMatchObject({
      code: 0,
      err: '',
    });
    const file = at('lora', 'pytorch_lora_weights.safetensors');
    const { tensors } = await readSafetensors(file);
    const path = 'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora';
    expect(tensors.get(`${path}.down.weight`)?.shape).toEqual([2, 8]);
    expect(tensors.get(`${path}.up.weight`)?.shape).toEqual([8, 2]);
    expect(Math.max(...(tensors.get(`${path}.up.weight`)!.data as Float32Array).map(Math.abs))).toBeGreaterThan(0);
    expect([...tensors.keys()].every((name) => /^unet\..*\.lora\.(down|up)\.weight$/.test(name))).toBe(true);
    const args = ['generate', 'red bar', '--model', at('base'), '--steps', '2', '--lora', file];
    expect((await cli(...args, '--out', at('lora.png'))).code).toBe(0);
  });

  it('writes a ControlNet that opens, from edges or from given hints', async () => {
    expect(await fromBase('edges', '--steps', '2', '--controlnet', '--hint', 'edges')).toMatchObject({
      code: 0,
      err: '',
    });
    const net = await loadComponent(at('edges', 'controlnet'));
    expect(net).toBeInstanceOf(ControlNet);
    const args = ['generate', 'red bar', '--model', at('base'), '--steps', '2'];
    expect((await cli('data', 'edges', at('data', 'red-1.png'), '--out', at('hint.png'))).code).toBe(0);
    const hint = `${at('edges', 'controlnet')}=${at('hint.png')}`;
    expect((await cli(...args, '--control', hint, '--out', at('edges.png'))).code).toBe(0);
    const { err } = await fromBase('hints', '--steps', '2', '--controlnet');
    expect(err).toMatch(/^noisewright: .*no 'conditioning' in metadata.jsonl/);
  });
});

describe('info', () => {
  it.each<[string, string[]]>([
    [
      'base',
      ['unet: UNet2DConditionModel', 'vae: AutoencoderKL', 'text_encoder: CLIPTextModel', 'scheduler: DDIMScheduler'],
    ],
    ['vae', ['vae: AutoencoderKL', 'latentChannels', 'klWeight']],
    ['lora', ['LoRA', 'layers      {"unet":', 'rank        [2]', 'loraRank']],
    ['edges', ['controlnet: ControlNetModel', 'conditioningEmbeddingOutChannels', 'hint']],
  ])('%s', async (run, parts) => {
    const { code, out } = await cli('info', at(run));
    expect(code).toBe(0);
    for (const part of [...parts, 'Training', 'learning rate']) expect(out).toContain(part);
    const [record] = (await cli('info', at(run), '--json')).out.split('\n').map((line) => JSON.parse(line));
    expect(record).toMatchObject({ kind: 'info', run: at(run), config: { batch: 4 } });
    expect(record.metrics.length).toBeGreaterThan(0);
    expect(record.parts.every(({ parameters }: { parameters: number }) => parameters > 0)).toBe(true);
  });

  it('shows parts and files by themselves', async () => {
    const lora = await cli('info', at('lora', 'pytorch_lora_weights.safetensors'));
    expect(lora.out).toMatch(/^.*\n\nLoRA\n {2}parameters/);
    const net = await cli('info', at('edges', 'controlnet'));
    expect(net.out).toMatch(/^.*\n\nControlNetModel\n/);
    expect(net.out).not.toContain('no training history');
  });
});

describe('what cannot be trained', () => {
  it.each<[string[], RegExp]>([
    [['--vae', 'x'], /--vae is for training from scratch/],
    [['--preset', 'xs'], /--preset is for training from scratch/],
    [['--lora-rank', '2', '--controlnet'], /one at a time/],
    [['--lora-alpha', '2'], /need a loraRank/],
    [['--lora-rank', '2', '--lora-targets', '('], /loraTargets: Invalid regular expression/],
    [['--lora-rank', '2', '--lora-targets', 'nothing'], /no layer of .* matches/],
    [['--size', '15'], /size 15: expected a multiple of 2/],
    [['--batch', '7'], /has 6 images, fewer than one batch of 7/],
    [['--prompt-dropout', '2'], /--prompt-dropout: .*got 2/],
  ])('%j', async (flags, message) => {
    const { code, err } = await fromBase('never', '--steps', '1', ...flags);
    expect(err).toMatch(message);
    expect(code).not.toBe(0);
  });

  it('names captions and pictures that are missing or damaged', async () => {
    const data = at('damaged');
    await cp(at('data'), data, { recursive: true });
    await rm(join(data, 'red-0.png'));
    const run = (...flags: string[]) =>
      cli(command, '--model', at('base'), '--data', data, ...small, '--steps', '1', '--out', at('skipping'), ...flags);
    expect((await run()).err).toMatch(/1 pictures cannot be used .*\n.*line 1: no file red-0.png/);
    await truncate(join(data, 'red-1.png'), 30);
    const { code, out } = await run('--skip-corrupt');
    expect(code).toBe(0);
    expect(out).toMatch(/left out: .*no file red-0.png/);
    expect(out).toMatch(/left out: .*red-1.png: not a readable picture/);
  });

  it('notices that the model is another one', async () => {
    await cp(at('base'), at('moved'), { recursive: true });
    await cli(command, '--model', at('moved'), '--data', at('data'), ...small, '--steps', '1', '--out', at('stale'));
    await writeFile(at('moved', 'vae', 'config.json'), `${await readFile(at('moved', 'vae', 'config.json'), 'utf8')} `);
    const { err } = await cli(command, '--resume', at('stale'), '--steps', '2');
    expect(err).toMatch(/not the model that .*stale began with/);
  });
});
