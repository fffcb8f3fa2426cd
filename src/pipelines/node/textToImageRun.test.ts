import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ndarray } from '../../array/index.js';
import { type Raster, trainTokenizer } from '../../io/index.js';
import { readSafetensors, savePng, saveTokenizer, writeJson } from '../../io/node/index.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  type ControlNet,
  loraLayers,
  SD3Transformer2D,
  type StoredModel,
  UNet2DCondition,
} from '../../models/index.js';
import { loadComponent, saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { euler, flowMatchEuler, type Sampler } from '../../samplers/index.js';
import { loadTextToImage, loraFile, TextToImageRun } from './index.js';

let root: string;
const at = (...names: string[]): string => join(root, ...names);
const rng = new Generator(0);
const captions = ['a red square', 'a blue square', 'a red bar', 'a blue bar'];
const tokenizer = trainTokenizer(captions, { vocabularySize: 530, modelMaxLength: 8 });
const text = {
  vocabSize: tokenizer.eosTokenId + 1,
  hiddenSize: 8,
  intermediateSize: 16,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  maxPositionEmbeddings: 8,
  projectionDim: 8,
  eosTokenId: tokenizer.eosTokenId,
};
const stages = {
  blockOutChannels: [8, 8],
  layersPerBlock: 1,
  normNumGroups: 4,
};
const vae = () =>
  new AutoencoderKL(
    {
      ...stages,
      downBlockTypes: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
      upBlockTypes: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
      shiftFactor: 0.1,
    },
    rng,
  );

/** A folder with two text encoders, as SDXL and SD3 have. */
async function writeFolder(name: string, part: 'unet' | 'transformer', model: StoredModel, sampler: Sampler) {
  const encoders = [
    name === 'sdxl' ? new CLIPTextModel(text, rng) : new CLIPTextModelWithProjection(text, rng),
    new CLIPTextModelWithProjection(text, rng),
  ];
  for (const [i, suffix] of ['', '_2'].entries()) {
    await saveModel(at(name, `text_encoder${suffix}`), encoders[i]);
    await saveTokenizer(at(name, `tokenizer${suffix}`), tokenizer);
  }
  await saveModel(at(name, part), model);
  await saveModel(at(name, 'vae'), vae());
  await writeJson(at(name, 'scheduler', 'scheduler_config.json'), sampler.toConfig());
  const className = (m: StoredModel) => (m.constructor as unknown as { className: string }).className;
  await writeJson(at(name, 'model_index.json'), {
    _class_name: name === 'sdxl' ? 'StableDiffusionXLPipeline' : 'StableDiffusion3Pipeline',
    ...(name === 'sdxl' && { force_zeros_for_empty_prompt: true }),
    scheduler: ['diffusers', sampler.className],
    text_encoder: ['transformers', className(encoders[0])],
    text_encoder_2: ['transformers', className(encoders[1])],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    tokenizer_2: ['transformers', 'CLIPTokenizer'],
    [part]: ['diffusers', className(model)],
    vae: ['diffusers', 'AutoencoderKL'],
  });
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const lines: string[] = [];
  for (const [i, caption] of captions.entries()) {
    const colour = caption.includes('red') ? [220, 30, 30] : [30, 30, 220];
    // Wider than high: what SDXL is told of crops must show it.
    const data = Uint8Array.from({ length: 24 * 16 * 3 }, (_, k) => {
      const [x, y] = [Math.floor(k / 3) % 24, Math.floor(k / 72)];
      return x > 7 && x < 16 && (i > 1 || (y > 3 && y < 12)) ? colour[k % 3] : 255;
    });
    const picture: Raster = { width: 24, height: 16, channels: 3, data };
    await savePng(at('data', `${i}.png`), picture);
    lines.push(JSON.stringify({ file_name: `${i}.png`, text: caption }));
  }
  await writeFile(at('data', 'metadata.jsonl'), lines.join('\n'));
  const unet = new UNet2DCondition(
    {
      ...stages,
      sampleSize: 8,
      downBlockTypes: ['DownBlock2D', 'CrossAttnDownBlock2D'],
      upBlockTypes: ['CrossAttnUpBlock2D', 'UpBlock2D'],
      crossAttentionDim: 16,
      attentionHeadDim: [2, 2],
      transformerLayersPerBlock: [1, 2],
      useLinearProjection: true,
      additionEmbedType: 'text_time',
      additionTimeEmbedDim: 4,
      projectionClassEmbeddingsInputDim: 8 + 6 * 4,
    },
    rng,
  );
  await writeFolder('sdxl', 'unet', unet, euler({ betaSchedule: 'scaled_linear', betaStart: 0.00085, betaEnd: 0.012 }));
  const transformer = new SD3Transformer2D(
    {
      sampleSize: 8,
      patchSize: 2,
      inChannels: 4,
      outChannels: 4,
      numLayers: 2,
      attentionHeadDim: 4,
      numAttentionHeads: 2,
      jointAttentionDim: 20,
      captionProjectionDim: 8,
      pooledProjectionDim: 16,
      posEmbedMaxSize: 8,
      dualAttentionLayers: [0],
      qkNorm: 'rms_norm',
    },
    rng,
  );
  await writeFolder('sd3', 'transformer', transformer, flowMatchEuler({ shift: 3 }));
}, 60_000);
afterAll(() => rm(root, { recursive: true, force: true }));

const settings = { batch: 4, threads: 1, warmup: 0, logEvery: 1, seed: 1 } as const;
type Options = Partial<Parameters<typeof TextToImageRun.create>[0]>;

async function train(out: string, model: string, options: Options): Promise<number[]> {
  const run = await TextToImageRun.create({ model: at(model), data: at('data'), ...settings, ...options }, at(out));
  return finish(run);
}
async function finish(run: TextToImageRun): Promise<number[]> {
  const losses: number[] = [];
  for await (const event of run.run()) if (event.kind === 'step') losses.push(event.loss);
  await run.release();
  return losses;
}
const mean = (list: readonly number[]) => list.reduce((a, b) => a + b) / list.length;
const pictureOf = async (folder: string, lora?: string) => {
  const pipeline = await loadTextToImage(at(folder));
  if (lora) pipeline.addLora(loraLayers((await readSafetensors(at(lora, loraFile))).tensors));
  return pipeline.images({ prompt: captions[0], steps: 2, seed: 1, compile: { threads: 1 } });
};

describe.each([
  ['sdxl', 'unet', ['lora.down', 'lora.up'], 'down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k'],
  ['sd3', 'transformer', ['lora_A', 'lora_B'], 'transformer_blocks.0.attn.add_q_proj'],
] as const)('%s', (model, part, halves, layer) => {
  it('is trained whole: the loss falls, and the folder opens', async () => {
    const losses = await train(`${model}-whole`, model, { steps: 60, learningRate: 0.01, checkpointEvery: 60 });
    expect(mean(losses.slice(-20))).toBeLessThan(0.85 * mean(losses.slice(0, 8)));
    const picture = await pictureOf(`${model}-whole`);
    expect(picture.shape).toEqual([1, 3, 16, 16]);
    expect([...picture.data].every(Number.isFinite)).toBe(true);
    expect([...picture.data]).not.toEqual([...(await pictureOf(model)).data]);
    const config = (folder: string) => readFile(at(folder, part, 'config.json'), 'utf8');
    expect(await config(`${model}-whole`)).toBe(await config(model));
  }, 60_000);

  it("is trained by a LoRA, continued bit for bit, under diffusers' names", async () => {
    const options = { loraRank: 2, loraAlpha: 4, learningRate: 0.02 };
    const losses = await train(`${model}-lora`, model, { ...options, steps: 30, checkpointEvery: 30 });
    expect(mean(losses.slice(-10))).toBeLessThan(mean(losses.slice(0, 5)));
    await train(`${model}-part`, model, { ...options, steps: 15 });
    await finish(await TextToImageRun.resume(at(`${model}-part`), { steps: 30 }));
    const [whole, parted] = [`${model}-lora`, `${model}-part`].map((run) => readFile(at(run, loraFile)));
    expect(await parted).toEqual(await whole);

    const { tensors } = await readSafetensors(at(`${model}-lora`, loraFile));
    const [a, b] = halves.map((half) => tensors.get(`${part}.${layer}.${half}.weight`));
    expect([a?.shape[0], b?.shape[1]]).toEqual([2, 2]);
    const names = new RegExp(`^${part}\\..*\\.(${halves.join('|')})\\.weight$`);
    expect([...tensors.keys()].filter((name) => !names.test(name))).toEqual([]);
    expect([...tensors.keys()].some((name) => name.includes('attn2.')) === (model === 'sdxl')).toBe(true);
    const [plain, changed] = [await pictureOf(model), await pictureOf(model, `${model}-lora`)];
    expect([...changed.data]).not.toEqual([...plain.data]);
  }, 60_000);
});

it('tells SDXL what size pictures had and how they were cropped', async () => {
  const run = await TextToImageRun.resume(at('sdxl-lora'), { steps: 31 });
  const told: number[][] = [];
  const learn = run.session.learn.bind(run.session);
  run.session.learn = (batches) =>
    learn(
      (async function* () {
        for await (const batch of batches) {
          told.push([...(batch.arrays.timeIds.data as Float32Array)].slice(0, 6));
          yield batch;
        }
      })(),
    );
  await finish(run);
  expect(told[0]).toEqual([16, 24, 0, 4, 16, 16]);
});

it("trains SDXL's ControlNet, which opens and speaks", async () => {
  await train('sdxl-edges', 'sdxl', { controlnet: true, hint: 'edges', steps: 3, learningRate: 0.1 });
  const net = (await loadComponent(at('sdxl-edges', 'controlnet'))) as ControlNet;
  expect(net.config).toMatchObject({ additionEmbedType: 'text_time', crossAttentionDim: 16 });
  const pipeline = await loadTextToImage(at('sdxl'));
  const request = { prompt: captions[0], steps: 2, seed: 1, compile: { threads: 1 } };
  const image = ndarray(new Float32Array(3 * 256).fill(1), [1, 3, 16, 16]);
  const [led, free] = [
    await pipeline.images({ ...request, controls: [{ net, image }] }),
    await pipeline.images(request),
  ];
  expect([...led.data]).not.toEqual([...free.data]);
});
