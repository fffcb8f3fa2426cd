import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { ClipTokenizer, configText } from '../io/index.js';
import {
  makeFolder,
  readBytes,
  readImage,
  readJson,
  readSafetensors,
  savePng,
  writeJson,
  writeNpz,
} from '../io/node/index.js';
import { AutoencoderKL, CLIPTextModel, ControlNet, DiT, UNet2DCondition } from '../models/index.js';
import { saveModel } from '../models/node/index.js';
import { saveTextToImage } from '../pipelines/node/index.js';
import { Generator } from '../random/index.js';
import { ddim } from '../samplers/index.js';
import { cli } from './testing.js';

const rng = new Generator(0);
const vae = new AutoencoderKL(
  {
    blockOutChannels: [8, 8],
    downBlockTypes: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
    upBlockTypes: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
    normNumGroups: 4,
  },
  rng,
);
const unet = (inChannels: number) =>
  new UNet2DCondition(
    {
      sampleSize: 8,
      inChannels,
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
const letters = [...'abcdefghijklmnopqrstuvwxyz'].flatMap((letter) => [letter, `${letter}</w>`]);
const vocabulary = [...letters, '<|startoftext|>', '<|endoftext|>'];
const tokenizer = new ClipTokenizer({
  'vocab.json': JSON.stringify(Object.fromEntries(vocabulary.map((token, id) => [token, id]))),
  'merges.txt': '#version: 0.2\n',
  'tokenizer_config.json': JSON.stringify({ model_max_length: 12 }),
});
const textEncoder = new CLIPTextModel(
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
);
const sampler = ddim({ clipSample: false });

let root: string;
const at = (...names: string[]) => join(root, ...names);
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'pipelines-'));
  const small = unet(4);
  await saveTextToImage(at('sd'), { model: small, vae, textEncoder, tokenizer, sampler });
  await saveTextToImage(at('inpaint'), { model: unet(9), vae, textEncoder, tokenizer, sampler });
  for (const name of ['edges', 'depth'])
    await saveModel(at(name), ControlNet.fromUNet(small, { conditioningEmbeddingOutChannels: [4, 4] }, rng));
  const dit = { sampleSize: 8, outChannels: 8, numAttentionHeads: 1, attentionHeadDim: 8, numLayers: 1 };
  const transformer = new DiT({ ...dit, numEmbedsAdaNorm: 3 }, rng);
  for (const p of transformer.parameters()) p.set(rng.normal(p.shape, 0, 0.2)); // away from zero, where gates begin
  await saveModel(at('dit', 'transformer'), transformer);
  await saveModel(at('dit', 'vae'), vae);
  await makeFolder(at('dit', 'scheduler'));
  await writeFile(at('dit', 'scheduler', 'scheduler_config.json'), configText(sampler.toConfig()));
  await writeJson(at('dit', 'model_index.json'), {
    _class_name: 'DiTPipeline',
    transformer: ['diffusers', 'DiTTransformer2DModel'],
    vae: ['diffusers', 'AutoencoderKL'],
    scheduler: ['diffusers', 'DDIMScheduler'],
    id2label: { 0: 'tench, Tinca tinca', 1: 'golden retriever', 2: 'white shark, man-eater' },
  });
  const picture = {
    width: 16,
    height: 16,
    channels: 3 as const,
    data: new Uint8Array(768).map((_, i) => (i * 7) % 256),
  };
  await savePng(at('picture.png'), picture);
  const mask = { width: 16, height: 16, channels: 1 as const, data: new Uint8Array(256).fill(255, 0, 128) };
  await savePng(at('mask.png'), mask);
});
afterAll(() => rm(root, { recursive: true }));

describe('a folder of DiTPipeline', () => {
  it('is sampled by the names of its classes, with what lies between noise and picture', async () => {
    const files = ['--out', at('d.png'), '--trajectory', at('t.png'), '--animation', at('a.gif')];
    const flags = ['--classes', 'Golden Retriever,man-eater', '--per-class', '2', '--steps', '2', '--threads', '1'];
    expect(await cli('sample', at('dit'), ...flags, ...files)).toMatchObject({ code: 0, err: '' });
    expect((await readImage(at('d.png'), { channels: 3 })).shape[2]).toBeGreaterThan(2 * 16);
    const wrong = await cli('sample', at('dit'), '--classes', 'whale');
    expect(wrong.err).toContain("names (tench, Tinca tinca; golden retriever; white shark, man-eater), got 'whale'");
  });

  it('is sampled by several classes at once', async () => {
    const flags = ['--per-class', '1', '--steps', '2', '--threads', '1'];
    const tensorOf = async (classes: string, guidance = '3') => {
      const out = ['--out', at('c.png'), '--save-tensor', at('c.safetensors')];
      const result = await cli('sample', at('dit'), '--classes', classes, '--guidance', guidance, ...flags, ...out);
      expect(result).toMatchObject({ code: 0, err: '' });
      return (await readSafetensors(at('c.safetensors'))).tensors.get('samples')!.data;
    };
    const plain = await tensorOf('1,2');
    expect(await tensorOf('golden retriever+tench:0,2')).toEqual(plain);
    const both = await tensorOf('golden retriever+tench:-0.5,2');
    expect(both.slice(0, 768)).not.toEqual(plain.slice(0, 768));
    expect(both.slice(768)).toEqual(plain.slice(768));
    for (const [flag, message] of [
      [['1+2:0.5,2+1:0.7'], 'every part needs the same weight in place 2, got 0.5, 0.7'],
      [['1+2', '--guidance', 'cfg=2,pag=1'], 'classes joined by + go with a guidance scale alone'],
      [['1+2', '--sampler', 'ode'], '--sampler ode: goes without classes joined by +'],
      [['1+all'], "'all' goes without +"],
    ] as const)
      expect((await cli('sample', at('dit'), '--classes', ...flag)).err).toContain(message);
  });

  it('and one of Stable Diffusion name the command that is meant', async () => {
    const generated = await cli('generate', 'a cat', '--model', at('dit'));
    expect(generated).toMatchObject({ code: 2 });
    expect(generated.err).toContain(`makes pictures of classes, not of texts: noisewright sample ${at('dit')}`);
    const sampled = await cli('sample', at('sd'));
    expect(sampled).toMatchObject({ code: 2 });
    expect(sampled.err).toContain(`makes pictures of texts: noisewright generate --model ${at('sd')}`);
    const measured = await cli('likelihood', at('dit'));
    expect(measured.err).toContain("likelihood is for models of pixels, and this one is of an autoencoder's latents");
  });
});

describe('noisewright train --vae', () => {
  it('trains on latents, goes on, and samples pictures', async () => {
    const images = ndarray(
      Uint8Array.from({ length: 8 * 768 }, (_, i) => (i * 37) % 256),
      [8, 3, 16, 16],
      'uint8',
    );
    const labels = ndarray(
      Array.from({ length: 8 }, (_, i) => i % 2),
      [8],
      'int32',
    );
    await writeNpz(at('toy.npz'), { images, labels });
    const config = '{"numLayers": 1, "attentionHeadDim": 8, "patchSize": 4}';
    const train = (...more: string[]) =>
      cli(
        ...['train', '--model', 'dit', '--preset', 'tiny', '--model-config', config, '--data', at('toy.npz')],
        ...['--batch', '4', '--threads', '1', '--predict', 'flow', '--vae', at('sd'), '--out', at('latent'), ...more],
      );
    expect(await train('--steps', '2', '--sample-every', '2')).toMatchObject({ code: 0, err: '' });
    expect(await readJson(at('latent', 'transformer', 'config.json'))).toMatchObject({
      in_channels: 4,
      sample_size: 8,
    });
    expect(await readImage(at('latent', 'samples', 'step-0000002.png'), { channels: 3 })).toBeTruthy();
    expect(await cli('train', '--resume', at('latent'), '--steps', '3')).toMatchObject({ code: 0, err: '' });
    const flags = ['--steps', '2', '--per-class', '1', '--threads', '1', '--save-tensor', at('l.safetensors')];
    expect(await cli('sample', at('latent'), ...flags, '--out', at('l.png'))).toMatchObject({ code: 0, err: '' });
    expect((await readSafetensors(at('l.safetensors'))).tensors.get('samples')!.shape).toEqual([2, 3, 16, 16]);
    expect((await train('--flip', '--out', at('x'))).err).toContain('flip mirrors pictures, not the latents of vae');
    expect((await train('--vae', at('edges'), '--out', at('x'))).err).toContain(
      'training on latents needs an AutoencoderKL',
    );
  });
});

describe('noisewright generate', () => {
  const base = (model: string) => ['a cat', '--model', at(model), '--steps', '3', '--threads', '1'];
  const bytes = (name: string) => readBytes(at(name));

  it('shows what is to come, and numbers several pictures', async () => {
    const files = ['--out', at('many.png'), '--preview', at('now.png'), '--images', '3'];
    expect(await cli('generate', ...base('sd'), ...files)).toMatchObject({ code: 0, err: '' });
    const [, height, width] = (await readImage(at('now.png'), { channels: 3 })).shape;
    expect(Math.min(height, width)).toBeGreaterThanOrEqual(32);
    expect((await readdir(root)).filter((name) => /^many-\d\.png$/.test(name)).length).toBe(3);
    expect(await bytes('many-1.png')).not.toEqual(await bytes('many-2.png'));
  });

  it.each([
    ['image to image', 'sd', ['--image', 'PICTURE', '--strength', '0.6']],
    ['painting with 4 channels', 'sd', ['--image', 'PICTURE', '--mask', 'MASK']],
    ['painting with 9 channels', 'inpaint', ['--image', 'PICTURE', '--mask', 'MASK']],
    [
      'two ControlNets, one of them guessing, in parts of the steps',
      'sd',
      ['--control', 'EDGES=PICTURE:0.7,to=0.7', '--control', 'DEPTH=PICTURE,from=0.3,guess'],
    ],
  ])('%s: a picture repeats its recipe', async (_, model, flags) => {
    const paths: Record<string, string> = { PICTURE: 'picture.png', MASK: 'mask.png', EDGES: 'edges', DEPTH: 'depth' };
    const given = flags.map((flag) => flag.replace(/PICTURE|MASK|EDGES|DEPTH/g, (word) => at(paths[word])));
    expect(await cli('generate', ...base(model), ...given, '--out', at('one.png'))).toMatchObject({ code: 0, err: '' });
    const again = await cli('generate', '--from', at('one.png'), '--out', at('again.png'), '--threads', '1');
    expect(again).toMatchObject({ code: 0, err: '' });
    expect(await bytes('again.png')).toEqual(await bytes('one.png'));
    expect(await cli('generate', ...base(model), '--out', at('plain.png'))).toMatchObject({
      code: model === 'sd' ? 0 : 1,
    });
    if (model === 'sd') expect(await bytes('plain.png')).not.toEqual(await bytes('one.png'));
  });

  it('ends at Ctrl-C without a picture', async () => {
    const running = cli('generate', 'a cat', '--model', at('sd'), '--steps', '900', '--out', at('never.png'));
    const asking = setInterval(() => process.emit('SIGINT'), 400);
    const { code, err } = await running.finally(() => clearInterval(asking));
    expect({ code, err }).toEqual({ code: 130, err: 'noisewright: interrupted' });
    expect((await readdir(root)).some((name) => name.includes('never'))).toBe(false);
  });

  it.each<[string, string[]]>([
    ['size 12x13 (height x width): expected multiples of 2', ['--size', '13x12']],
    ['--control: from and to are rising shares', ['--control', 'EDGES=PICTURE,from=0.8,to=0.2']],
    ['the model has no ControlNet left', ['--control', 'PICTURE']],
    ['mask: this model paints parts of pictures; give an image and a mask', ['--model', 'INPAINT']],
    ['vae holds no ControlNetModel', ['--control', 'VAE=PICTURE']],
    ['cannot write', ['--preview', 'EDGES/config.json/a.png']],
  ])('refuses: %s', async (message, flags) => {
    const paths: Record<string, string> = { PICTURE: 'picture.png', EDGES: 'edges', VAE: 'sd/vae', INPAINT: 'inpaint' };
    const given = flags.map((flag) => flag.replace(/PICTURE|EDGES|VAE|INPAINT/g, (word) => at(paths[word])));
    const { code, err } = await cli('generate', ...base('sd'), ...given, '--out', at('refused.png'));
    expect(err).toContain(message);
    expect(code).toBeGreaterThan(0);
  });
});
