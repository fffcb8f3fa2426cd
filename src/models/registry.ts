import type { Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { configFromJson } from './config.js';
import { DiT, ditConfig, ditPresets } from './dit.js';

/** Any model that predicts from x [N, C, H, W], a timestep [N] and, when it is conditional, a class [N]. */
export interface Denoiser extends Module {
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor;
  /** The label that stands for "no condition"; undefined when the model takes no labels. */
  readonly nullClass?: number;
  readonly inChannels: number;
  readonly outChannels: number;
  readonly sampleSize: number;
  readonly config: object;
}

export interface ImageFormat {
  readonly channels: number;
  /** Height and width. */
  readonly size: number;
  readonly classes: number;
}

export interface DenoiserClass {
  /** diffusers' class name. */
  readonly className: string;
  /** Its folder in a pipeline. */
  readonly folder: 'transformer' | 'unet';
  readonly presets: Readonly<Record<string, object>>;
  /** From the content of a config.json. */
  fromJson(json: unknown, rng: Generator): Denoiser;
  /** For training on images of a format; `config` in camelCase. */
  create(config: object, format: ImageFormat, rng: Generator): Denoiser;
}

const dit: DenoiserClass = {
  className: DiT.className,
  folder: 'transformer',
  presets: ditPresets,
  fromJson: (json, rng) => new DiT(configFromJson(DiT.className, ditConfig, json), rng) as Denoiser,
  create: (config, { channels, size, classes }, rng) =>
    new DiT({ sampleSize: size, inChannels: channels, numEmbedsAdaNorm: classes, ...config }, rng) as Denoiser,
};

export const denoiserClasses: readonly DenoiserClass[] = [dit];

/** @throws TypeError that lists the known classes. */
export function denoiserClass(className: unknown): DenoiserClass {
  const found = denoiserClasses.find((entry) => entry.className === className);
  if (found) return found;
  const known = denoiserClasses.map((entry) => entry.className).join(', ');
  throw new TypeError(`model: _class_name: expected one of ${known}, got ${JSON.stringify(className)}`);
}
