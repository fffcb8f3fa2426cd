import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { blankRaster, ClipTokenizer, readPngText } from '../io/index.js';
import { readBytes, savePng, writeSafetensors } from '../io/node/index.js';
import { AutoencoderKL, CLIPTextModel, Lora, UNet2DCondition } from '../models/index.js';
import { loadTextToImage, saveTextToImage } from '../pipelines/node/index.js';
import { Generator } from '../random/index.js';
import { ddim, dpmSolverMultistep } from '../samplers/index.js';
import { cli } from './testing.js';

let folder: string;
let model: string;
const rng = new Generator(0);
const letters = [...'abcdefghijklmnopqrstuvwxyz'];
const vocabulary = [...letters, ...letters.map((letter) => `${letter}</w>`), '<|startoftext|>', '<|endoftext|>'];
const tokenizer = new ClipTokenizer({
  'vocab.json': JSON.stringify(Object.fromEntries(vocabulary.map((token, id) => [token, id]))),
  'merges.txt': '#version: 0.2\n',
  'tokenizer_config.json': JSON.stringify({ model_max_length: 12 }),
});
const unet = new UNet2DCondition(
  {
    sampleSize: 8,
    blockOutChannels: [8, 8],
    downBlockTypes: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    upBlockTypes: ['UpBlock2D', 'CrossAttnUpBlock2D'],
    layersPerBlock: 1,
    crossAttentionDim: 8,
    attentionHeadDim: 2,
    normNumGroups: 4,
  },
  rng,
);
const parts = {
  model: unet,
  tokenizer,
  vae: new AutoencoderKL(
    {
      blockOutChannels: [8, 8],
      downBlockTypes: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
      upBlockTypes: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
      normNumGroups: 4,
    },
    rng,
  ),
  textEncoder: new CLIPTextModel(
    {
      vocabSize: vocabulary.length,
      hiddenSize: 8,
      intermediateSize: 16,
      numHiddenLayers: 2,
      numAttentionHeads: 2,
      maxPositionEmbeddings: 12,
      eosTokenId: 53,
    },
    rng,
  ),
  sampler: ddim({ betaSchedule: 'scaled_linear', betaStart: 0.00085, betaEnd: 0.012, clipSample: false }),
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'text-to-image-'));
  model = join(folder, 'model');
  await saveTextToImage(model, parts);
});
afterAll(() => rm(folder, { recursive: true }));

describe('a text-to-image folder', () => {
  it("keeps a sampler's infinite limit, which JSON has no word for", async () => {
    const path = join(folder, 'dpm');
    const sampler = dpmSolverMultistep();
    await saveTextToImage(path, { ...parts, sampler });
    const written = await readFile(join(path, 'scheduler', 'scheduler_config.json'), 'utf8');
    expect(written).toContain('"lambda_min_clipped": -Infinity');
    expect((await loadTextToImage(path)).parts.sampler.config).toEqual(sampler.config);
  });

  it('opens as it was saved', async () => {
    const pipeline = await loadTextToImage(model);
    expect(pipeline.parts.sampler.toConfig()).toEqual(parts.sampler.toConfig());
    const [a, b] = await Promise.all(
      ['a cat', 'a dog'].map((prompt) => pipeline.images({ prompt, steps: 2, seed: 1 })),
    );
    expect(a.shape).toEqual([1, 3, 16, 16]);
    expect([...a.data]).not.toEqual([...b.data]);
  });

  it('names the part that is missing', async () => {
    const index = join(folder, 'model_index.json');
    await writeFile(index, JSON.stringify({ _class_name: 'X', unet: ['diffusers', 'UNet2DConditionModel'] }));
    await expect(loadTextToImage(folder)).rejects.toThrow('scheduler_config.json');
    await writeFile(index, JSON.stringify({ _class_name: 'X', vae: [null, null] }));
    await expect(loadTextToImage(folder)).rejects.toThrow('it names no unet and no transformer');
  });
});

describe('noisewright generate', () => {
  it("writes no picture that tells of the user's home folder, and repeats it from there", async () => {
    vi.stubEnv('HOME', folder);
    const [hat, again, grid] = ['hat.png', 'again.png', 'hat-grid.png'].map((name) => join(folder, name));
    await savePng(grid, blankRaster(16, 16, 3, 90));
    const flags = ['--model', model, '--steps', '2', '--image', grid, '--mask', grid, '--out', hat];
    expect(await cli('generate', 'a cat', ...flags)).toMatchObject({ code: 0, err: '' });
    const text = readPngText(await readBytes(hat)).noisewright;
    expect(text).not.toContain(folder);
    expect(JSON.parse(text).recipe).toMatchObject({
      model: '~/model',
      image: '~/hat-grid.png',
      mask: '~/hat-grid.png',
    });
    expect(await cli('generate', '--from', hat, '--out', again)).toMatchObject({ code: 0, err: '' });
    expect(await readBytes(again)).toEqual(await readBytes(hat));
    vi.unstubAllEnvs();
  });

  it('keeps the recipe in the picture and repeats it', async () => {
    const [first, second, third] = ['1.png', '2.png', '3.png'].map((name) => join(folder, name));
    const made = await cli(
      'generate',
      'a cat',
      '--model',
      model,
      '--steps',
      '2',
      '--guidance',
      'cfg=3,pag=2',
      '--seed',
      '7',
      '--out',
      first,
    );
    expect(made).toMatchObject({ code: 0, err: '' });
    expect(made.out).toContain(`noisewright generate --from ${first} --seed 8`);
    expect(JSON.parse(readPngText(await readBytes(first)).noisewright).recipe).toMatchObject({
      prompt: 'a cat',
      seed: 7,
    });
    expect((await cli('generate', '--from', first, '--out', second)).code).toBe(0);
    expect(await readBytes(second)).toEqual(await readBytes(first));
    // Its weights are too small to be rounded.
    const rounded = join(folder, 'rounded.png');
    expect((await cli('generate', '--from', first, '--quantize', '8', '--tile', '8', '--out', rounded)).code).toBe(0);
    expect(JSON.parse(readPngText(await readBytes(rounded)).noisewright).recipe.quantize).toBe('8');
    const elsewhere = await cli('generate', '--from', rounded, '--device', 'webgpu', '--out', rounded);
    expect(elsewhere.err).toContain('--quantize: weights in 8 bits need --device cpu, not webgpu');
    const other = await cli('generate', '--from', first, '--seed', '8', '--images', '2', '--out', third, '--json');
    expect(JSON.parse(other.out)).toMatchObject({
      kind: 'images',
      seed: 8,
      prompt: 'a cat',
      files: [join(folder, '3-1.png'), join(folder, '3-2.png')],
    });
  });

  it('begins with a picture, paints a part of it, and takes a LoRA', async () => {
    const file = join(folder, 'lora.safetensors');
    await writeSafetensors(file, await new Lora(unet, { rank: 2 }, rng).toTensors('unet'));
    const first = join(folder, '1.png');
    const args = ['--model', model, '--steps', '2', '--image', first, '--mask', first, '--lora', `${file}:0.5`];
    expect(await cli('generate', 'a hat', ...args, '--out', join(folder, '4.png'))).toMatchObject({ code: 0, err: '' });
  });

  it.each<[string, number, string[]]>([
    ['--model is missing', 2, ['a cat']],
    ['the prompt is missing', 2, ['--model', '.']],
    ["--size: expected <width>x<height> such as 512x768, got '5'", 2, ['a', '--model', '.', '--size', '5']],
    ["--out: expected a .png file, got 'x.jpg'", 2, ['a', '--model', '.', '--out', 'x.jpg']],
    ['nowhere', 1, ['a', '--model', 'nowhere']],
    ['--mask: needs --image', 2, ['a', '--model', 'MODEL', '--mask', 'm.png']],
    ['--control: expected <folder>=<picture>', 2, ['a', '--model', 'MODEL', '--control', 'canny']],
    ['no picture that noisewright generate made', 1, ['--from', 'MODEL/model_index.json']],
  ])('refuses: %s', async (message, code, args) => {
    const result = await cli('generate', ...args.map((arg) => arg.replace('MODEL', model)));
    expect(result.err).toContain(message);
    expect(result.code).toBe(code);
  });
});
