import type { output, ZodType } from 'zod';
import type { Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { AutoencoderKL, autoencoderKlConfig } from './autoencoderKl.js';
import { AutoencoderTiny, autoencoderTinyConfig } from './autoencoderTiny.js';
import { fromTransformersJson, toTransformersJson } from './clip.js';
import { CLIPTextModel, CLIPTextModelWithProjection, clipTextConfig } from './clipText.js';
import { configFromJson, configToJson } from './config.js';
import { ControlNet, controlNetConfig } from './controlNet.js';
import type { Denoiser } from './denoiser.js';
import { DiT, type DiTOptions, ditConfig, ditPresets } from './dit.js';
import { DiTVariant, type DiTVariantOptions, ditVariantConfig, ditVariantPresets } from './ditVariant.js';
import { EncoderUNet, type EncoderUNetOptions, encoderUnetConfig, encoderUnetPresets } from './encoderUnet.js';
import { PixArtTransformer2D, pixartConfig } from './pixartTransformer2d.js';
import { SafetyChecker } from './safetyChecker.js';
import { SD3Transformer2D, sd3Config } from './sd3Transformer2d.js';
import { T5EncoderModel, t5Config } from './t5Encoder.js';
import { UNet2D, type UNet2DOptions, unet2dConfig, unet2dPresets } from './unet2d.js';
import { UNet2DCondition, unet2dConditionConfig } from './unet2dCondition.js';
import { UViT, type UViTOptions, uvitConfig, uvitPresets } from './uvit.js';

/** What a data set says about the model to train on it. */
export interface ImageFormat {
  readonly channels: number;
  /** Height and width. */
  readonly size: number;
  readonly classes: number;
}

/** A model that a folder can hold. */
export interface StoredModel extends Module {
  /** Its config.json in camelCase, every default filled in. */
  readonly config: object;
}

/** A class of models as folders know it. */
export interface ModelClass<M extends StoredModel = StoredModel> {
  /** The library's name for it, in config.json and model_index.json. */
  readonly className: string;
  /** Whose layout the folder has: default 'diffusers'. */
  readonly library?: 'diffusers' | 'transformers' | 'noisewright';
  /**
   * From the content of a config.json.
   * @throws TypeError that names each unknown or wrong field, RangeError for fields that do not fit together.
   */
  fromJson(json: unknown, rng: Generator): M;
  /** The content of config.json; default: diffusers'. */
  toJson?(model: M): Record<string, unknown>;
}

/** A class of models as training and the command line know it. */
export interface TrainableClass<M extends StoredModel = StoredModel> extends ModelClass<M> {
  /** Short, for people. */
  readonly name: string;
  /** Its folder in a pipeline. */
  readonly folder: 'transformer' | 'unet' | 'classifier';
  /** Configs by size, for `create`. */
  readonly presets: Readonly<Record<string, object>>;
  /**
   * For training on images of a format; a denoiser has a null class beside theirs.
   * @param config fields in camelCase, which win over what the format says.
   * @throws as `fromJson`.
   */
  create(config: object, format: ImageFormat, rng: Generator): M;
}

/** A class of denoisers. */
export interface DenoiserClass extends TrainableClass<Denoiser> {
  readonly name: 'dit' | 'unet' | 'uvit' | 'dit-variant';
  readonly folder: 'transformer' | 'unet';
}

const dit: DenoiserClass = {
  name: 'dit',
  className: DiT.className,
  folder: 'transformer',
  presets: ditPresets,
  fromJson: (json, rng) => new DiT(configFromJson(DiT.className, ditConfig, json), rng),
  create(config, { channels, size, classes }, rng) {
    const format: DiTOptions = { sampleSize: size, inChannels: channels, numEmbedsAdaNorm: classes };
    return new DiT({ ...format, ...config }, rng);
  },
};

const unet: DenoiserClass = {
  name: 'unet',
  className: UNet2D.className,
  folder: 'unet',
  presets: unet2dPresets,
  fromJson: (json, rng) => new UNet2D(configFromJson(UNet2D.className, unet2dConfig, json), rng),
  create(config, { channels, size, classes }, rng) {
    const format: UNet2DOptions = {
      sampleSize: size,
      inChannels: channels,
      outChannels: channels,
      numClassEmbeds: classes + 1,
    };
    return new UNet2D({ ...format, ...config }, rng);
  },
};

const uvit: DenoiserClass = {
  name: 'uvit',
  className: UViT.className,
  library: 'noisewright',
  folder: 'transformer',
  presets: uvitPresets,
  fromJson: (json, rng) => new UViT(configFromJson(UViT.className, uvitConfig, json), rng),
  create(config, { channels, size, classes }, rng) {
    if ('outChannels' in config) throw new TypeError('UViT: does not predict a variance, as learnVariance asks');
    const format: UViTOptions = { imgSize: size, patchSize: 2, inChans: channels, numClasses: classes + 1 };
    return new UViT({ ...format, ...config }, rng);
  },
};

const ditVariant: DenoiserClass = {
  name: 'dit-variant',
  className: DiTVariant.className,
  library: 'noisewright',
  folder: 'transformer',
  presets: ditVariantPresets,
  fromJson: (json, rng) => new DiTVariant(configFromJson(DiTVariant.className, ditVariantConfig, json), rng),
  create(config, { channels, size, classes }, rng) {
    const format: DiTVariantOptions = { inputSize: size, inChannels: channels, numClasses: classes };
    return new DiTVariant({ ...format, ...config }, rng);
  },
};

const noisyClassifier: TrainableClass<EncoderUNet> = {
  name: 'noisy-classifier',
  className: EncoderUNet.className,
  folder: 'classifier',
  presets: encoderUnetPresets,
  fromJson: (json, rng) => new EncoderUNet(configFromJson(EncoderUNet.className, encoderUnetConfig, json), rng),
  create(config, { channels, size, classes }, rng) {
    const format = { imageSize: size, inChannels: channels, outChannels: classes };
    return new EncoderUNet({ ...format, ...(config as Pick<EncoderUNetOptions, 'modelChannels'>) }, rng);
  },
};

export const denoiserClasses: readonly DenoiserClass[] = [dit, unet, uvit, ditVariant];
export const trainableClasses = [dit, unet, uvit, ditVariant, noisyClassifier] as const;

const clipText = (Class: typeof CLIPTextModel): ModelClass => ({
  className: Class.className,
  library: 'transformers',
  fromJson: (json, rng) => new Class(fromTransformersJson(Class.className, clipTextConfig, json), rng),
  toJson: ({ config }) => toTransformersJson(Class.className, 'clip_text_model', config),
});

/** A class of diffusers whose constructor takes the fields of its config.json. */
const diffusersClass = <S extends ZodType>(
  Class: { readonly className: string; new (config: output<S>, rng: Generator): StoredModel },
  schema: S,
): ModelClass => ({
  className: Class.className,
  fromJson: (json, rng) => new Class(configFromJson(Class.className, schema, json), rng),
});

/** Every class of models that folders can hold. */
export const modelClasses: readonly ModelClass[] = [
  ...trainableClasses,
  diffusersClass(UNet2DCondition, unet2dConditionConfig),
  diffusersClass(AutoencoderKL, autoencoderKlConfig),
  diffusersClass(AutoencoderTiny, autoencoderTinyConfig),
  diffusersClass(ControlNet, controlNetConfig),
  diffusersClass(SD3Transformer2D, sd3Config),
  diffusersClass(PixArtTransformer2D, pixartConfig),
  clipText(CLIPTextModel),
  clipText(CLIPTextModelWithProjection),
  {
    className: T5EncoderModel.className,
    library: 'transformers',
    fromJson: (json, rng) => new T5EncoderModel(fromTransformersJson(T5EncoderModel.className, t5Config, json), rng),
    toJson: ({ config }) => toTransformersJson(T5EncoderModel.className, 't5', config),
  },
  {
    className: SafetyChecker.className,
    library: 'transformers',
    fromJson: (json, rng) => SafetyChecker.fromJson(json, rng),
    toJson: (model) => (model as SafetyChecker).toJson(),
  },
];

/**
 * @param name diffusers' class name, or the short one.
 * @throws TypeError that lists the known classes.
 */
export function denoiserClass(name: unknown): DenoiserClass {
  return denoiserClasses.find((entry) => entry.name === name) ?? classNamed(denoiserClasses, name);
}

/** As {@link denoiserClass}, of all that can be trained. */
export const trainableClass = (name: unknown): (typeof trainableClasses)[number] =>
  trainableClasses.find((entry) => entry.name === name) ?? classNamed(trainableClasses, name);

/** @param name the library's name. @throws TypeError that lists the known classes. */
export const modelClass = (name: unknown): ModelClass => classNamed(modelClasses, name);

/** The class a model is of. */
export const denoiserClassOf = (model: Denoiser): DenoiserClass => denoiserClass(classNameOf(model));

/** The content of the config.json that `model`'s own library opens. */
export function modelToJson(model: StoredModel): Record<string, unknown> {
  const { className, toJson } = modelClass(classNameOf(model));
  return toJson ? toJson(model) : configToJson(className, model.config);
}

export const classNameOf = (model: StoredModel): unknown =>
  (model.constructor as unknown as { readonly className: unknown }).className;

function classNamed<C extends { readonly className: string }>(classes: readonly C[], name: unknown): C {
  const found = classes.find((entry) => entry.className === name);
  if (found) return found;
  const known = classes.map((entry) => entry.className).join(', ');
  throw new TypeError(`model: _class_name: expected one of ${known}, got ${JSON.stringify(name)}`);
}
