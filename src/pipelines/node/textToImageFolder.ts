import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ClipImageProcessor, type ClipTokenizer } from '../../io/index.js';
import {
  fileError,
  loadT5Tokenizer,
  loadTokenizer,
  makeFolder,
  pathExists,
  readBytes,
  readJson,
  saveTokenizer,
  writeConfig,
  writeFolderAtomic,
  writeJson,
} from '../../io/node/index.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  ControlNet,
  PixArtTransformer2D,
  SafetyChecker,
  SD3Transformer2D,
  T5EncoderModel,
  UNet2DCondition,
} from '../../models/index.js';
import { loadComponent, type SaveModelOptions, saveModel } from '../../models/node/index.js';
import { type Sampler, samplerFromConfig } from '../../samplers/index.js';
import type { CompileOptions } from '../../tensor/index.js';
import type { Autoencoder } from '../latentSpace.js';
import { ClipPrompts, type ClipTower, Sd3Prompts, SdxlPrompts } from '../promptEncoders.js';
import { PixArtPrompts, type T5Tower } from '../t5Prompts.js';
import { type PromptEncoder, type SafetyCheck, type TextConditioned, TextToImage } from '../textToImage.js';

const entry = z.union([z.tuple([z.string(), z.string()]), z.tuple([z.null(), z.null()])]);
const modelIndex = z
  .object({ _class_name: z.string(), force_zeros_for_empty_prompt: z.boolean().optional() })
  .catchall(z.union([entry, z.unknown()]));
type ModelIndex = z.output<typeof modelIndex>;

/** What a folder of diffusers says of one of its parts: its class; undefined when it has none. */
function classOf(index: ModelIndex, part: string): string | undefined {
  const found = entry.safeParse(index[part]);
  return (found.success && found.data[1]) || undefined;
}

/**
 * Opens a text-to-image folder in diffusers' layout: Stable Diffusion 1, 2, XL and 3, PixArt, in 32 or 16-bit floats. Large
 * weights are not read: the engine takes them from their files.
 * @param folder holds model_index.json and a folder for each part.
 * @throws Error that names the file, part or field at fault: missing, of an unknown class, of a wrong shape, a pickle.
 */
export async function loadTextToImage(folder: string, options: LoadTextToImageOptions = {}): Promise<TextToImage> {
  const path = join(folder, 'model_index.json');
  const index = await readJson(path, modelIndex);
  const part = async <M>(name: string): Promise<M> => {
    const className = classOf(index, name);
    if (!className) throw fileError('read', path, new Error(`it names no ${name}, which text-to-image needs`));
    if (!(await pathExists(join(folder, name))))
      throw fileError('read', path, new Error(`it names ${name} (${className}), but ${folder} has no such folder`));
    return loadComponent(join(folder, name), className) as Promise<unknown> as Promise<M>;
  };
  if (index.requires_aesthetics_score === true)
    throw fileError(
      'read',
      path,
      new Error('requires_aesthetics_score: refiners that are told a score are not known here'),
    );
  const modelName = ['unet', 'transformer'].find((name) => classOf(index, name));
  if (!modelName) throw fileError('read', path, new Error('it names no unet and no transformer'));
  const scheduler = join(folder, 'scheduler', 'scheduler_config.json');
  const sampler = samplerFromConfig(new TextDecoder().decode(await readBytes(scheduler)));
  const vae = await part<Autoencoder>('vae');
  const model = await part<TextConditioned>(modelName);
  const safety = options.safetyChecker === false ? undefined : await safetyCheck(folder, index);
  const prompts = await promptEncoder(folder, index, model);
  const { weights } = options;
  return new TextToImage({
    model,
    vae,
    sampler,
    safety,
    prompts,
    weights,
    controlNets: await controlNets(folder, index),
  });
}

/** The ControlNets of a folder that has some: `controlnet`, then `controlnet_1` and so on. */
async function controlNets(folder: string, index: ModelIndex): Promise<ControlNet[]> {
  if (!classOf(index, 'controlnet')) return [];
  const nets: ControlNet[] = [];
  for (
    let part = 'controlnet';
    nets.length === 0 || (await pathExists(join(folder, part)));
    part = `controlnet_${nets.length}`
  ) {
    const net = await loadComponent(join(folder, part));
    if (!(net instanceof ControlNet)) throw new TypeError(`${folder}: ${part} is no ${ControlNet.className}`);
    nets.push(net);
  }
  return nets;
}

export interface LoadTextToImageOptions {
  /** false: a safety checker in the folder is not opened. */
  readonly safetyChecker?: boolean;
  /**
   * 'int8': denoise with large weights rounded to 8 bits, which are made from the file when the first step is: a third of
   * the memory, on the CPU only.
   */
  readonly weights?: CompileOptions['weights'];
}

/** The folder's safety checker, which it may lack, with the preprocessing it was tuned to. */
async function safetyCheck(folder: string, index: ModelIndex): Promise<SafetyCheck | undefined> {
  const className = classOf(index, 'safety_checker');
  if (!className) return undefined;
  const checker = await loadComponent(join(folder, 'safety_checker'), className);
  if (!(checker instanceof SafetyChecker))
    throw new TypeError(`${folder}: safety_checker is a ${className}, expected ${SafetyChecker.className}`);
  const path = join(folder, 'feature_extractor', 'preprocessor_config.json');
  const processor = classOf(index, 'feature_extractor')
    ? ClipImageProcessor.fromJson(await readJson(path, z.record(z.string(), z.unknown())))
    : undefined;
  return (images, compile) => checker.check(images, processor, compile);
}

/** How the texts of a model are encoded, by the model's class and its text towers. */
async function promptEncoder(folder: string, index: ModelIndex, model: TextConditioned): Promise<PromptEncoder> {
  if (model instanceof PixArtTransformer2D) {
    if (!classOf(index, 'text_encoder')) return withoutEncoder(folder);
    const length = index._class_name.startsWith('PixArtSigma') ? 300 : 120;
    return new PixArtPrompts(await t5Tower(folder, index, ''), length, model.isToldSize);
  }
  const numbers = ['', '_2'].filter((suffix) => classOf(index, `text_encoder${suffix}`));
  const towers = await Promise.all(
    numbers.map((suffix) => tower(folder, suffix, classOf(index, `text_encoder${suffix}`)!)),
  );
  if (towers.length === 0) return withoutEncoder(folder);
  if (model instanceof SD3Transformer2D) {
    const t5 = classOf(index, 'text_encoder_3') ? await t5Tower(folder, index, '_3') : undefined;
    return new Sd3Prompts(towers, model.config.jointAttentionDim, 256, t5);
  }
  const isXl = model instanceof UNet2DCondition && model.config.additionEmbedType === 'text_time';
  return isXl ? new SdxlPrompts(towers, index.force_zeros_for_empty_prompt ?? true) : new ClipPrompts(towers[0]);
}

async function tower(folder: string, suffix: string, className: string): Promise<ClipTower> {
  const tokenizer = await loadTokenizer(join(folder, `tokenizer${suffix}`));
  const model = await loadComponent(join(folder, `text_encoder${suffix}`), className);
  if (!(model instanceof CLIPTextModel))
    throw new TypeError(`${folder}: text_encoder${suffix} is a ${className}, expected CLIP's text tower`);
  return { tokenizer, model, part: `text_encoder${suffix}` };
}

async function t5Tower(folder: string, index: ModelIndex, suffix: string): Promise<T5Tower> {
  const part = `text_encoder${suffix}`;
  const tokenizer = await loadT5Tokenizer(join(folder, `tokenizer${suffix}`));
  const model = await loadComponent(join(folder, part), classOf(index, part));
  if (!(model instanceof T5EncoderModel))
    throw new TypeError(`${folder}: ${part} is a ${classOf(index, part)}, expected ${T5EncoderModel.className}`);
  return { tokenizer, model };
}

const withoutEncoder = (folder: string): PromptEncoder => ({
  encode: () => Promise.reject(new Error(`${folder}: it has no text encoder; give the conditions' embeddings`)),
});

/** Whether a folder in diffusers' layout makes pictures from text. */
export async function isTextToImage(folder: string): Promise<boolean> {
  const path = join(folder, 'model_index.json');
  if (!(await stat(path).catch(() => undefined))) return false;
  const index = await readJson(path, modelIndex);
  return ['text_encoder', 'tokenizer'].some((part) => part in index);
}

export interface TextToImageFolder {
  readonly model: UNet2DCondition;
  readonly vae: AutoencoderKL;
  readonly textEncoder: CLIPTextModel;
  readonly tokenizer: ClipTokenizer;
  readonly sampler: Sampler;
}

/** model_index.json of a system with one text encoder. */
export const stableDiffusionIndex = (sampler: Sampler): Record<string, unknown> => ({
  _class_name: 'StableDiffusionPipeline',
  feature_extractor: [null, null],
  requires_safety_checker: false,
  safety_checker: [null, null],
  scheduler: ['diffusers', sampler.className],
  text_encoder: ['transformers', CLIPTextModel.className],
  tokenizer: ['transformers', 'CLIPTokenizer'],
  unet: ['diffusers', UNet2DCondition.className],
  vae: ['diffusers', AutoencoderKL.className],
});

/**
 * Writes a text-to-image folder that diffusers' StableDiffusionPipeline opens, replacing an older one as a whole.
 * @param options.weights of the model, instead of its own: an average, say.
 */
export async function saveTextToImage(
  folder: string,
  { model, vae, textEncoder, tokenizer, sampler }: TextToImageFolder,
  options: SaveModelOptions = {},
): Promise<void> {
  await writeFolderAtomic(folder, async (aside) => {
    await writeJson(join(aside, 'model_index.json'), stableDiffusionIndex(sampler));
    await makeFolder(join(aside, 'scheduler'));
    await writeConfig(join(aside, 'scheduler', 'scheduler_config.json'), sampler.toConfig());
    await saveTokenizer(join(aside, 'tokenizer'), tokenizer);
    await saveModel(join(aside, 'text_encoder'), textEncoder);
    await saveModel(join(aside, 'vae'), vae);
    await saveModel(join(aside, 'unet'), model, options);
  });
}
