import { join } from 'node:path';
import { z } from 'zod';
import { fileError, type HubOptions, pathExists, readJson } from '../../io/node/index.js';
import type { TextToImage } from '../textToImage.js';
import { ClassConditionalPipeline } from './classConditional.js';
import { loadSingleFile, type SingleFileOptions } from './singleFile.js';
import { modelFolder } from './source.js';
import { type LoadTextToImageOptions, loadTextToImage } from './textToImageFolder.js';

/** What a folder may open as, by its `kind`. */
export interface PipelineKinds {
  readonly 'text-to-image': TextToImage;
  readonly 'class-conditional': ClassConditionalPipeline;
}
export type PipelineKind = keyof PipelineKinds;
/** Any pipeline: its `kind` tells which one. */
export type AnyPipeline = PipelineKinds[PipelineKind];

export interface PipelineOptions<K extends PipelineKind = PipelineKind>
  extends LoadTextToImageOptions,
    SingleFileOptions,
    HubOptions {
  /** What it has to be: then the result is of that type, and anything else is refused. */
  readonly kind?: K;
}

const stableDiffusion = ['StableDiffusion', 'StableDiffusionXL', 'StableDiffusion3'];
const tasks = ['', 'Img2Img', 'Inpaint', 'ControlNet', 'ControlNetImg2Img', 'ControlNetInpaint'];
const perturbed = ['PAG', 'PAGImg2Img', 'PAGInpaint', 'ControlNetPAG', 'ControlNetPAGInpaint'];

/** diffusers' classes, and those that write what this library trains, by what opens them. */
export const pipelineClasses: Readonly<Record<PipelineKind, readonly string[]>> = {
  'text-to-image': [
    ...stableDiffusion.flatMap((family) => [...tasks, ...perturbed].map((task) => `${family}${task}Pipeline`)),
    'LatentConsistencyModelPipeline',
    'LatentConsistencyModelImg2ImgPipeline',
    'PixArtAlphaPipeline',
    'PixArtSigmaPipeline',
    'PixArtSigmaPAGPipeline',
  ],
  'class-conditional': ['DiTPipeline', 'DDPMPipeline', 'DDIMPipeline'],
};

/**
 * What a folder's model_index.json says it is.
 * @throws Error that names the class when none of {@link pipelineClasses} is called so, or the missing file.
 */
export async function pipelineKind(folder: string): Promise<PipelineKind> {
  const path = join(folder, 'model_index.json');
  if (!(await pathExists(path)) && (await pathExists(join(folder, 'config.json'))))
    throw fileError('read', folder, new Error('one part of a pipeline, expected a whole one with model_index.json'));
  const { _class_name: name } = await readJson(path, z.looseObject({ _class_name: z.string() }));
  const kinds = Object.keys(pipelineClasses) as PipelineKind[];
  const kind = kinds.find((each) => pipelineClasses[each].includes(name));
  if (kind) return kind;
  if (name === 'NoisyClassifier')
    throw fileError('read', path, new Error('a classifier of noisy pictures: open it by loadNoisyClassifier'));
  const known = kinds.flatMap((each) => pipelineClasses[each]).join(', ');
  throw fileError('read', path, new Error(`_class_name: ${name} is not known here, expected one of ${known}`));
}

/** Opens pipelines of every kind. */
export const Pipeline = {
  /**
   * Opens what `source` is, by the class its model_index.json names.
   * @param source a folder in diffusers' layout, the id of one at the Hugging Face hub (`owner/name`), or a
   * `.safetensors` file of Stable Diffusion 1.
   * @returns a {@link TextToImage} or a {@link ClassConditionalPipeline}: `kind` tells which.
   * @throws Error that names the class, part, file or field at fault; TypeError when it is of another kind than asked for.
   */
  async fromPretrained<K extends PipelineKind = PipelineKind>(
    source: string,
    options: PipelineOptions<K> = {},
  ): Promise<PipelineKinds[K]> {
    const folder = await modelFolder(source, options);
    const isFile = folder.endsWith('.safetensors');
    const kind = isFile ? 'text-to-image' : await pipelineKind(folder);
    if (options.kind !== undefined && options.kind !== kind)
      throw new TypeError(`${source}: a ${kind} pipeline, expected a ${options.kind} one`);
    if (options.weights === 'int8' && kind !== 'text-to-image')
      throw new TypeError(`${source}: weights in 8 bits are for text-to-image, not for a ${kind} pipeline`);
    const opened: AnyPipeline = isFile
      ? await loadSingleFile(folder, options)
      : kind === 'text-to-image'
        ? await loadTextToImage(folder, options)
        : await ClassConditionalPipeline.fromPretrained(folder);
    return opened as PipelineKinds[K];
  },
};
