import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { NdArray } from '../../array/index.js';
import { type ClipTokenizer, configText, trainTokenizer } from '../../io/index.js';
import { fingerprint, pathExists, readJson, saveTokenizer, writeConfig, writeJson } from '../../io/node/index.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  ControlNet,
  Lora,
  type StoredModel,
  UNet2DCondition,
} from '../../models/index.js';
import { loadComponent, saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { type Sampler, samplerFromConfig } from '../../samplers/index.js';
import type { CompileOptions } from '../../tensor/index.js';
import { samplerConfigOf } from '../../training/index.js';
import { ClipPrompts } from '../promptEncoders.js';
import type { PromptEncoder, TextConditioned } from '../textToImage.js';
import type { TrainedParts } from '../textToImageLearner.js';
import type { TextToImageTraining } from '../textToImageTraining.js';
import { loadTextToImage, stableDiffusionIndex } from './textToImageFolder.js';

/** A text-to-image system to be trained, and what of it is. */
export interface TextToImageSystem {
  readonly model: TextConditioned & StoredModel;
  readonly vae: AutoencoderKL;
  readonly sampler: Sampler;
  readonly trained: TrainedParts;
  /** Tell autoencoders and text encoders apart. */
  readonly vaeKey: string;
  readonly textKey: string;
  /** Side of the pictures. */
  readonly size: number;
  /** The model is told what size pictures had and how they were cropped (SDXL). */
  readonly timed: boolean;
  /** What texts tell the model, or its text encoder where that is trained. */
  encode(texts: readonly string[], compile?: CompileOptions): Promise<Readonly<Record<string, NdArray>>>;
  /** Writes the parts that are not trained, where a whole system is written. */
  writeFixed(folder: string): Promise<void>;
  /** model_index.json, where a whole system is written. */
  writeIndex(folder: string): Promise<void>;
}

/** @throws Error that names the part, file or setting at fault. */
export function openSystem(config: TextToImageTraining, captions: readonly string[]): Promise<TextToImageSystem> {
  return config.model === undefined ? fromScratch(config, captions) : fromFolder(config, config.model);
}

const modelIndex = z.record(z.string(), z.unknown());

async function fromFolder(config: TextToImageTraining, folder: string): Promise<TextToImageSystem> {
  const { parts } = await loadTextToImage(folder, { safetyChecker: false });
  const model = parts.model as TextConditioned & StoredModel;
  const { vae, prompts, sampler } = parts;
  checkVae(vae, join(folder, 'vae'));
  const size = config.size ?? usualSize(model, vae, folder);
  checkSize(size, vae);
  const trained = trainedParts(config, model, vae);
  const part = 'unet' in trained ? 'unet' : 'transformer';
  const whole = !trained.lora && !trained.controlnet;
  return {
    model,
    vae,
    sampler,
    trained,
    size,
    timed: model instanceof UNet2DCondition && model.config.additionEmbedType === 'text_time',
    vaeKey: await fingerprint(join(folder, 'vae')),
    textKey: `${config.fingerprint} ${size}`,
    async encode(texts, compile) {
      // Sizes belong to pictures, not to texts.
      const { timeIds: _, ...told } = await prompts.encode(texts, {
        promptSyntax: 'plain',
        size: [size, size],
        compile,
      });
      return told;
    },
    async writeFixed(out) {
      if (!whole) return;
      for (const name of Object.keys(await readJson(join(folder, 'model_index.json'), modelIndex)))
        if (name !== part && (await pathExists(join(folder, name))))
          await cp(join(folder, name), join(out, name), { recursive: true, dereference: true });
    },
    async writeIndex(out) {
      if (whole) await cp(join(folder, 'model_index.json'), join(out, 'model_index.json'), { dereference: true });
    },
  };
}

async function fromScratch(config: TextToImageTraining, captions: readonly string[]): Promise<TextToImageSystem> {
  const { vae: source, seed, vocabulary, textEncoder: joint } = config;
  if (source === undefined) throw new TypeError('vae: training from scratch needs an autoencoder: see train-vae');
  const vaeFolder = (await pathExists(join(source, 'vae'))) ? join(source, 'vae') : source;
  const vae = await loadComponent(vaeFolder);
  checkVae(vae, vaeFolder);
  const rng = new Generator(seed);
  const tokenizer = tokenizerFor(captions, vocabulary);
  const text = new CLIPTextModel({ ...config.textConfig, ...vocabularyOf(tokenizer) }, rng);
  const { latentChannels, sampleSize } = vae.config;
  const size = config.size ?? (typeof sampleSize === 'number' ? sampleSize : sampleSize[0]);
  checkSize(size, vae);
  const format = { sampleSize: size / vae.downsampling, inChannels: latentChannels, outChannels: latentChannels };
  const width = { crossAttentionDim: text.config.hiddenSize };
  const model = new UNet2DCondition({ ...format, ...config.modelConfig, ...width }, rng) as UNet2DCondition &
    TextConditioned;
  const trained: TrainedParts = {
    ...trainedParts(config, model, vae),
    ...(joint === 'joint' && { text_encoder: text }),
  };
  const sampler = samplerFromConfig(
    configText({
      ...samplerConfigOf({ ...config, learnVariance: false }),
      ...(config.predict !== 'flow' && { clip_sample: false }),
    }),
  );
  const prompts: PromptEncoder = new ClipPrompts({ tokenizer, model: text });
  return {
    model,
    vae,
    sampler,
    trained,
    size,
    timed: false,
    vaeKey: await fingerprint(vaeFolder),
    textKey: `${JSON.stringify([tokenizer.files, text.config, seed, joint])}`,
    encode: async (texts, compile) =>
      joint === 'joint'
        ? { inputIds: tokenizer.encodeBatch(texts).inputIds }
        : prompts.encode(texts, { promptSyntax: 'plain', size: [size, size], compile }),
    async writeFixed(out) {
      await saveTokenizer(join(out, 'tokenizer'), tokenizer);
      await saveModel(join(out, 'vae'), vae);
      if (joint === 'fixed') await saveModel(join(out, 'text_encoder'), text);
      await writeConfig(join(out, 'scheduler', 'scheduler_config.json'), sampler.toConfig());
    },
    writeIndex: (out) => writeJson(join(out, 'model_index.json'), stableDiffusionIndex(sampler)),
  };
}

function trainedParts(config: TextToImageTraining, model: TextConditioned, vae: AutoencoderKL): TrainedParts {
  const { loraRank, loraAlpha, loraTargets, controlnet, seed } = config;
  const rng = new Generator(seed);
  if (loraRank !== undefined) {
    const targets = loraTargets === undefined ? undefined : new RegExp(loraTargets);
    return { lora: new Lora(model, { rank: loraRank, alpha: loraAlpha, targets }, rng) };
  }
  if (controlnet) {
    if (!(model instanceof UNet2DCondition))
      throw new TypeError(
        `controlnet: a ControlNet is made from a UNet, and this model is a ${model.constructor.name}`,
      );
    const conditioningEmbeddingOutChannels = hintChannels(vae.downsampling);
    return { controlnet: ControlNet.fromUNet(model, { conditioningEmbeddingOutChannels }, rng) };
  }
  return { [partOf(model)]: model };
}

/** The folder of a model in its pipeline. */
export const partOf = (model: TextConditioned): 'unet' | 'transformer' =>
  model instanceof UNet2DCondition ? 'unet' : 'transformer';

/** Of the hint's convolutions: Zhang et al.'s for an eighth, a step less or more for other latents. */
function hintChannels(factor: number): number[] {
  const steps = Math.log2(factor) + 1;
  return Array.from({ length: steps }, (_, i) => [16, 32, 96][i] ?? 256);
}

function checkVae(vae: unknown, folder: string): asserts vae is AutoencoderKL {
  if (!(vae instanceof AutoencoderKL))
    throw new TypeError(`${folder}: training needs an ${AutoencoderKL.className}, whose latents are drawn`);
}

function checkSize(size: number, { downsampling }: AutoencoderKL): void {
  if (size % downsampling !== 0)
    throw new RangeError(`size ${size}: expected a multiple of ${downsampling}, what the autoencoder divides it by`);
}

function usualSize(
  { config: { sampleSize } }: TextConditioned,
  { downsampling }: AutoencoderKL,
  folder: string,
): number {
  const side = Array.isArray(sampleSize) ? sampleSize[0] : sampleSize;
  if (typeof side !== 'number') throw new TypeError(`${folder}: the model does not say its size: give --size`);
  return side * downsampling;
}

/** A tokenizer of the captions' own words, as long as the longest of them, in eights. */
function tokenizerFor(captions: readonly string[], vocabularySize: number): ClipTokenizer {
  const tokenizer = trainTokenizer(captions, { vocabularySize });
  const longest = captions.reduce((most, text) => Math.max(most, tokenizer.encode(text).length + 2), 0);
  return trainTokenizer(captions, { vocabularySize, modelMaxLength: Math.min(77, 8 * Math.ceil(longest / 8)) });
}

const vocabularyOf = ({ bosTokenId, eosTokenId, padTokenId, modelMaxLength }: ClipTokenizer) => ({
  vocabSize: eosTokenId + 1,
  maxPositionEmbeddings: modelMaxLength,
  bosTokenId,
  eosTokenId,
  padTokenId,
});
