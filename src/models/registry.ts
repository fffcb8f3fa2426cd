import type { Generator } from '../random/index.js';
import { configFromJson } from './config.js';
import type { Denoiser } from './denoiser.js';
import { DiT, type DiTOptions, ditConfig, ditPresets } from './dit.js';
import { UNet2D, type UNet2DOptions, unet2dConfig, unet2dPresets } from './unet2d.js';

/** What a data set says about the model to train on it. */
export interface ImageFormat {
  readonly channels: number;
  /** Height and width. */
  readonly size: number;
  readonly classes: number;
}

/** A class of models as configurations, folders and the command line know it. */
export interface DenoiserClass {
  /** Short, for people. */
  readonly name: 'dit' | 'unet';
  /** diffusers' name for it, in config.json and model_index.json. */
  readonly className: string;
  /** Its folder in a pipeline. */
  readonly folder: 'transformer' | 'unet';
  /** Configs by size, for `create`. */
  readonly presets: Readonly<Record<string, object>>;
  /**
   * From the content of a config.json.
   * @throws TypeError that names each unknown or wrong field, RangeError for fields that do not fit together.
   */
  fromJson(json: unknown, rng: Generator): Denoiser;
  /**
   * For training on images of a format, with a null class beside theirs.
   * @param config fields in camelCase, which win over what the format says.
   * @throws as `fromJson`.
   */
  create(config: object, format: ImageFormat, rng: Generator): Denoiser;
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

export const denoiserClasses: readonly DenoiserClass[] = [dit, unet];

/**
 * @param name diffusers' class name, or the short one.
 * @throws TypeError that lists the known classes.
 */
export function denoiserClass(name: unknown): DenoiserClass {
  const found = denoiserClasses.find((entry) => entry.className === name || entry.name === name);
  if (found) return found;
  const known = denoiserClasses.map((entry) => entry.className).join(', ');
  throw new TypeError(`model: _class_name: expected one of ${known}, got ${JSON.stringify(name)}`);
}

/** The class a model is of. */
export const denoiserClassOf = (model: Denoiser): DenoiserClass =>
  denoiserClass((model.constructor as unknown as { readonly className: unknown }).className);
