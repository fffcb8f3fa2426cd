import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest';
import { cfg } from '../../guidance/index.js';
import { ClipTokenizer, configText } from '../../io/index.js';
import { savePng, saveTokenizer, writeJson, writeSafetensors } from '../../io/node/index.js';
import {
  AutoencoderKL,
  CLIPTextModelWithProjection,
  DiT,
  PixArtTransformer2D,
  SD3Transformer2D,
  type StoredModel,
  T5EncoderModel,
} from '../../models/index.js';
import { saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { ddim, flowMatchEuler, type Sampler } from '../../samplers/index.js';
import { Sd3Prompts } from '../promptEncoders.js';
import type { TextToImage } from '../textToImage.js';
import type { ClassConditionalPipeline } from './classConditional.js';
import { Pipeline } from './pipeline.js';
import { TextToImageRun } from './textToImageRun.js';

const spiece = new URL('../../io/fixtures/spiece.model', import.meta.url);
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
const t5 = new T5EncoderModel({ vocabSize: 60, dModel: 16, dKv: 4, dFf: 8, numLayers: 1, numHeads: 2 }, rng);
const letters = [...'acot'].flatMap((letter) => [letter, `${letter}</w>`]);
const vocabulary = [...letters, '<|startoftext|>', '<|endoftext|>'];
const tokenizer = new ClipTokenizer({
  'vocab.json': JSON.stringify(Object.fromEntries(vocabulary.map((token, id) => [token, id]))),
  'merges.txt': '#version: 0.2\n',
});
const clip = () =>
  new CLIPTextModelWithProjection(
    {
      vocabSize: vocabulary.length,
      hiddenSize: 8,
      intermediateSize: 8,
      numHiddenLayers: 2,
      numAttentionHeads: 2,
      projectionDim: 8,
      eosTokenId: 9,
    },
    rng,
  );

const sd3 = new SD3Transformer2D(
  {
    sampleSize: 4,
    inChannels: 4,
    outChannels: 4,
    numLayers: 1,
    attentionHeadDim: 4,
    numAttentionHeads: 2,
    jointAttentionDim: 16,
    captionProjectionDim: 8,
    pooledProjectionDim: 16,
    posEmbedMaxSize: 8,
  },
  rng,
);
const parts = {
  transformer: sd3,
  vae,
  tokenizer: 'clip',
  text_encoder: clip(),
  tokenizer_2: 'clip',
  text_encoder_2: clip(),
} as const;

let root: string;
const at = (...names: string[]) => join(root, ...names);
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'pipeline-'));
});
afterAll(() => rm(root, { recursive: true }));

/** A folder of random weights. @param parts models, 'clip' or 't5' for their tokenizers; @param more of model_index.json. */
async function folder(
  name: string,
  className: string,
  parts: Readonly<Record<string, StoredModel | 'clip' | 't5'>>,
  sampler: Sampler,
  more: object = {},
): Promise<string> {
  const index: Record<string, unknown> = {
    _class_name: className,
    scheduler: ['diffusers', sampler.className],
    ...more,
  };
  for (const [part, model] of Object.entries(parts)) {
    const path = at(name, part);
    index[part] = [
      'library',
      typeof model === 'object' ? (model.constructor as { className?: string }).className : model,
    ];
    if (model === 'clip') await saveTokenizer(path, tokenizer);
    else if (model === 't5') await cp(spiece, join(path, 'spiece.model'));
    else await saveModel(path, model);
  }
  await writeJson(at(name, 'model_index.json'), index);
  await cp(at(name, 'model_index.json'), at(name, 'scheduler', 'scheduler_config.json'));
  await writeFile(at(name, 'scheduler', 'scheduler_config.json'), configText(sampler.toConfig()));
  return at(name);
}

/** Weights away from zero, where gates and heads begin. */
function shaken<M extends StoredModel>(model: M): M {
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.2));
  return model;
}

describe('DiTPipeline', () => {
  const dit = () =>
    shaken(
      new DiT(
        { sampleSize: 8, outChannels: 8, numAttentionHeads: 1, attentionHeadDim: 8, numLayers: 1, numEmbedsAdaNorm: 3 },
        rng,
      ),
    );
  const id2label = { 0: 'tench, Tinca tinca', 1: 'golden retriever', 2: 'white shark, man-eater' };

  it('samples latents with a learned variance and decodes them', async () => {
    const path = await folder('dit', 'DiTPipeline', { transformer: dit(), vae }, ddim() as Sampler, { id2label });
    const pipeline = await Pipeline.fromPretrained(path);
    if (pipeline.kind !== 'class-conditional') throw new Error(pipeline.kind);
    expectTypeOf(pipeline).toEqualTypeOf<ClassConditionalPipeline>();
    const classes = pipeline.labelIds(['Golden Retriever', 'man-eater', 'tench']);
    expect(classes).toEqual([1, 2, 0]);
    const images = await pipeline.images({ classes, guidance: cfg(3), plan: { steps: 2 }, seed: 1 });
    expect(images.shape).toEqual([3, 3, 16, 16]);
    expect(images.data.every(Number.isFinite)).toBe(true);
    expect(() => pipeline.labelIds(['shark'])).toThrow("class 'shark' is unknown; like it are white shark, man-eater");
    expect(() => pipeline.labelIds(['zebra'])).toThrow('there are tench, Tinca tinca; golden retriever');
  });

  it('names an autoencoder that does not fit', async () => {
    const path = await folder('misfit', 'DiTPipeline', { transformer: dit(), vae }, ddim() as Sampler);
    const wide = new AutoencoderKL({ ...vae.config, latentChannels: 8 }, rng);
    await saveModel(at('misfit', 'vae'), wide);
    await expect(Pipeline.fromPretrained(path)).rejects.toThrow('vae has 8 latent channels, the model expects 4');
  });
});

describe('StableDiffusion3Pipeline', () => {
  it('hears T5 as its third text encoder, and does without', async () => {
    const sampler = flowMatchEuler() as Sampler;
    const without = await folder('sd3', 'StableDiffusion3Pipeline', parts, sampler, { text_encoder_3: [null, null] });
    const whole = { ...parts, tokenizer_3: 't5', text_encoder_3: t5 } as const;
    const all = await folder('sd3-t5', 'StableDiffusion3Pipeline', whole, sampler);
    const encoded = async (path: string) => {
      const { parts } = await Pipeline.fromPretrained(path, { kind: 'text-to-image' });
      expect(parts.prompts).toBeInstanceOf(Sd3Prompts);
      const { encoderHiddenStates } = await parts.prompts.encode(['a cat', 'taco'], { size: [8, 8] });
      expect(encoderHiddenStates.shape).toEqual([2, 77 + 256, 16]);
      return encoderHiddenStates.data as Float32Array;
    };
    const [silent, told] = [await encoded(without), await encoded(all)];
    const row = 333 * 16;
    expect(told.slice(0, 77 * 16)).toEqual(silent.slice(0, 77 * 16));
    expect(silent.slice(77 * 16, row).every((x) => x === 0)).toBe(true);
    const of = (i: number) => told.slice(i * row + 77 * 16, (i + 1) * row);
    expect(of(0).some((x) => x !== 0)).toBe(true);
    expect(of(0)).not.toEqual(of(1));
    const pipeline = await Pipeline.fromPretrained(all, { kind: 'text-to-image' });
    const images = await pipeline.images({ prompt: 'a (cat:1.4)', steps: 2, guidanceScale: 3 });
    expect(images.shape).toEqual([1, 3, 8, 8]);
  });
});

describe('PixArt', () => {
  const transformer = (useAdditionalConditions: boolean) =>
    shaken(
      new PixArtTransformer2D(
        {
          sampleSize: 8,
          numLayers: 1,
          numAttentionHeads: 2,
          attentionHeadDim: 6,
          crossAttentionDim: 12,
          captionChannels: 16,
          useAdditionalConditions,
        },
        rng,
      ),
    );

  it.each([
    ['PixArtAlphaPipeline', 120, true],
    ['PixArtSigmaPipeline', 300, false],
  ])('%s: prompts of %i tokens, masked', async (name, length, sized) => {
    const parts = { transformer: transformer(sized), vae, tokenizer: 't5', text_encoder: t5 } as const;
    const path = await folder(name, name, parts, ddim({ clipSample: false }) as Sampler);
    const pipeline = await Pipeline.fromPretrained(path, { kind: 'text-to-image' });
    const told = await pipeline.parts.prompts.encode([' A Cat '], { size: [12, 8], promptSyntax: 'plain' });
    expect(told.encoderHiddenStates.shape).toEqual([1, length, 16]);
    expect([...told.encoderAttentionMask.data].map(Number).reduce((a, b) => a + b)).toBe(3);
    expect(told.aspectRatio?.data).toEqual(sized ? Float32Array.of(1.5) : undefined);
    const [cat, dog] = await Promise.all(
      ['a cat', 'a dog'].map((prompt) => pipeline.images({ prompt, steps: 2, guidanceScale: 3, size: [12, 8] })),
    );
    expect(cat.shape).toEqual([1, 3, 12, 8]);
    expect(cat.data).not.toEqual(dog.data);
  });

  it('is trained further', async () => {
    const parts = { transformer: transformer(true), vae, tokenizer: 't5', text_encoder: t5 } as const;
    const path = await folder('trained', 'PixArtAlphaPipeline', parts, ddim() as Sampler);
    const data = new Uint8Array(768).map((_, i) => (i * 7) % 256);
    for (const name of ['a cat', 'a dog']) {
      await savePng(at('data', `${name}.png`), { width: 16, height: 16, channels: 3, data });
      await writeFile(at('data', `${name}.txt`), name);
    }
    const options = { model: path, data: at('data'), steps: 1, batch: 2, size: 16, threads: 1 };
    const run = await TextToImageRun.create(options, at('run'));
    const losses: number[] = [];
    for await (const event of run.run()) if (event.kind === 'step') losses.push(event.loss);
    await run.release();
    expect(losses).toEqual([expect.any(Number)]);
    const again = await Pipeline.fromPretrained(at('run'), { kind: 'text-to-image' });
    expect(again.parts.model).toBeInstanceOf(PixArtTransformer2D);
  });

  it('keeps prompts that are too long, unless they are plain', async () => {
    const parts = { transformer: transformer(false), vae, tokenizer: 't5', text_encoder: t5 } as const;
    const path = await folder('long', 'PixArtAlphaPipeline', parts, ddim() as Sampler);
    const { prompts } = ((await Pipeline.fromPretrained(path)) as TextToImage).parts;
    const lengthOf = async (promptSyntax: 'plain' | 'weighted') =>
      (await prompts.encode(['a cat '.repeat(200)], { size: [8, 8], promptSyntax })).encoderHiddenStates.shape[1];
    expect(await lengthOf('plain')).toBe(120);
    expect(await lengthOf('weighted')).toBeGreaterThan(400);
  });
});

describe('a folder that cannot be opened', () => {
  it('is named with its class and those that are known', async () => {
    const path = await folder('video', 'CogVideoXPipeline', {}, ddim() as Sampler);
    await expect(Pipeline.fromPretrained(path)).rejects.toThrow(
      /video\/model_index.json: _class_name: CogVideoXPipeline is not known here, expected one of StableDiffusionPipeline, .*DiTPipeline/,
    );
    const refiner = { unet: sd3, vae };
    const more = { requires_aesthetics_score: true };
    const scored = await folder('refiner', 'StableDiffusionXLImg2ImgPipeline', refiner, ddim() as Sampler, more);
    await expect(Pipeline.fromPretrained(scored)).rejects.toThrow('refiners that are told a score are not known');
    await expect(Pipeline.fromPretrained(at('nowhere'))).rejects.toThrow('nowhere: no such folder');
  });

  it('is refused when it is of another kind than asked for, with that kind as its type', async () => {
    const asked = Pipeline.fromPretrained(at('dit'), { kind: 'text-to-image' });
    expectTypeOf(asked).resolves.toEqualTypeOf<TextToImage>();
    await expect(asked).rejects.toThrow('a class-conditional pipeline, expected a text-to-image one');
    await expect(Pipeline.fromPretrained(at('dit', 'vae'))).rejects.toThrow('one part of a pipeline, expected a whole');
    await expect(Pipeline.fromPretrained(at('dit'), { weights: 'int8' })).rejects.toThrow(
      'weights in 8 bits are for text-to-image, not for a class-conditional pipeline',
    );
  });

  it('says which part is named but missing', async () => {
    const part = at('sd3', 'vae');
    await cp(part, at('kept'), { recursive: true });
    await rm(part, { recursive: true });
    await expect(Pipeline.fromPretrained(at('sd3'))).rejects.toThrow(
      /it names vae \(AutoencoderKL\), but .*sd3 has no such/,
    );
    await cp(at('kept'), part, { recursive: true });
  });

  it('says which shard is missing, and how to convert a pickle', async () => {
    await cp(at('sd3-t5'), at('damaged'), { recursive: true });
    const t5Folder = at('damaged', 'text_encoder_3');
    const state = [...t5.stateDict()];
    const places = state.map(([name], i) => [name, `model-0000${i < 3 ? 1 : 2}-of-00002.safetensors`]);
    await rm(join(t5Folder, 'model.safetensors'));
    await writeJson(join(t5Folder, 'model.safetensors.index.json'), { weight_map: Object.fromEntries(places) });
    const [first, second] = [state.slice(0, 3), state.slice(3)].map((part) => new Map(part));
    await writeSafetensors(join(t5Folder, 'model-00001-of-00002.safetensors'), first);
    await expect(Pipeline.fromPretrained(at('damaged'))).rejects.toThrow(
      /cannot read .*model-00002-of-00002.safetensors: no such file/,
    );
    await writeSafetensors(join(t5Folder, 'model-00002-of-00002.safetensors'), second);
    await Pipeline.fromPretrained(at('damaged'));

    const vaeFile = at('damaged', 'vae', 'diffusion_pytorch_model.safetensors');
    const bytes = await readFile(vaeFile);
    await writeFile(vaeFile, bytes.subarray(0, bytes.length - 9));
    await expect(Pipeline.fromPretrained(at('damaged'))).rejects.toThrow(
      /vae.diffusion_pytorch_model.safetensors: .*\(/,
    );
    await rm(vaeFile);
    await writeFile(at('damaged', 'vae', 'diffusion_pytorch_model.bin'), 'pickled');
    await expect(Pipeline.fromPretrained(at('damaged'))).rejects.toThrow(
      /model.bin: a pickle can run any code when it is opened.*save_pretrained\(folder, safe_serialization=True\)/,
    );
  });

  it('or whose weights are not numbers, says so instead of making pictures', async () => {
    const path = await folder('nan', 'StableDiffusion3Pipeline', { ...parts }, flowMatchEuler() as Sampler);
    const state = parts.transformer.stateDict();
    const [name, array] = [...state].find(([key]) => key.endsWith('proj_out.weight'))!;
    const data = (array.data as Float32Array).slice().fill(Number.NaN, 0, 1);
    const damaged = new Map([...state, [name, { ...array, data } as typeof array]]);
    await writeSafetensors(at('nan', 'transformer', 'diffusion_pytorch_model.safetensors'), damaged);
    const pipeline = await Pipeline.fromPretrained(path, { kind: 'text-to-image' });
    await expect(pipeline.images({ prompt: 'a cat', steps: 1 })).rejects.toThrow('numbers that are not finite');
    expect(() =>
      pipeline.addLora([{ target: 'unet', path: 'mid_block.attn1', down: rng.randn([1, 4]), up: rng.randn([4, 1]) }]),
    ).toThrow('made for another architecture: 1 of its 1 layers do not fit this SD3Transformer2D: mid_block.attn1');
  });

  it('says which class or option is unknown', async () => {
    const path = at('sd3', 'transformer', 'config.json');
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace('"patch_size"', '"patch_sise"'));
    await expect(Pipeline.fromPretrained(at('sd3'))).rejects.toThrow(
      /transformer\/config.json: .*[Uu]nrecognized key.*patchSise/s,
    );
    await writeFile(path, text.replace('SD3Transformer2DModel', 'FluxTransformer2DModel'));
    const index = at('sd3', 'model_index.json');
    const listed = await readFile(index, 'utf8');
    await writeFile(index, listed.replace('SD3Transformer2DModel', 'FluxTransformer2DModel'));
    await expect(Pipeline.fromPretrained(at('sd3'))).rejects.toThrow('got "FluxTransformer2DModel"');
    await writeFile(index, listed);
    await writeFile(path, text);
    const scheduler = at('sd3', 'scheduler', 'scheduler_config.json');
    await writeFile(scheduler, JSON.stringify({ _class_name: 'MyScheduler' }));
    await expect(Pipeline.fromPretrained(at('sd3'))).rejects.toThrow(/MyScheduler/);
  });
});
