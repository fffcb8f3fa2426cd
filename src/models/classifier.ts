import { z } from 'zod';
import { parseFields } from '../io/index.js';
import { activate, Conv2d, GroupNorm, Linear, Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { modelConfig, positive } from './config.js';

export const classifierConfig = modelConfig({
  inChannels: positive.default(1),
  numClasses: positive.default(10),
  /** Channels and stride of each convolution; the last one's channels are the features. */
  layers: z
    .array(z.tuple([positive, positive]))
    .min(1)
    .default([
      [32, 1],
      [64, 2],
      [64, 1],
      [128, 2],
      [128, 1],
    ]),
  normNumGroups: positive.default(8),
});
export type ClassifierConfig = z.output<typeof classifierConfig>;
export type ClassifierOptions = z.input<typeof classifierConfig>;

class ConvBlock extends Module {
  readonly conv: Conv2d;
  readonly norm: GroupNorm;

  constructor(inChannels: number, outChannels: number, stride: number, groups: number, rng: Generator) {
    super();
    this.conv = new Conv2d(inChannels, outChannels, 3, { stride, padding: 1, bias: false }, rng);
    this.norm = new GroupNorm(groups, outChannels);
  }

  forward(x: Tensor): Tensor {
    return activate('silu', this.norm.forward(this.conv.forward(x)));
  }
}

/** A small convolutional classifier: what generated images are judged by, through its features and its classes. */
export class ImageClassifier extends Module {
  static readonly className = 'ImageClassifier';
  readonly layers: readonly ConvBlock[];
  readonly head: Linear;
  readonly config: ClassifierConfig;

  /** @throws TypeError for a config field that is unknown or out of range; RangeError when groups do not divide channels. */
  constructor(options: ClassifierOptions, rng: Generator) {
    super();
    const config = parseFields(ImageClassifier.className, classifierConfig, options);
    this.config = config;
    const widths = [config.inChannels, ...config.layers.map(([channels]) => channels)];
    this.layers = config.layers.map(
      ([channels, stride], i) => new ConvBlock(widths[i], channels, stride, config.normNumGroups, rng),
    );
    this.head = new Linear(widths.at(-1)!, config.numClasses, rng);
  }

  /** What every layer gives, [N, channels, h, w] each. @param images [N, C, H, W] in [-1, 1]. */
  activations(images: Tensor): Tensor[] {
    if (images.shape[1] !== this.config.inChannels)
      throw new RangeError(`ImageClassifier: images [${images.shape}], expected ${this.config.inChannels} channels`);
    const outputs: Tensor[] = [];
    for (const layer of this.layers) outputs.push(layer.forward(outputs.at(-1) ?? images));
    return outputs;
  }

  /** @param images [N, C, H, W] in [-1, 1]; @returns [N, features], the last layer's mean over all positions. */
  features(images: Tensor): Tensor {
    return this.activations(images).at(-1)!.mean([2, 3]);
  }

  /** @param features of {@link features}; @returns [N, numClasses], before the softmax. */
  logits(features: Tensor): Tensor {
    return this.head.forward(features);
  }
}
