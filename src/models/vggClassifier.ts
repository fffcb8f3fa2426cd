import { z } from 'zod';
import { parseFields } from '../io/index.js';
import { Linear, Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, type Tensor } from '../tensor/index.js';
import { StyleEncoder } from './adainNet.js';
import { modelConfig, positive } from './config.js';

export const vggClassifierConfig = modelConfig({
  /** Channels at full, half, quarter and eighth size. */
  channels: z.tuple([positive, positive, positive, positive]).default([16, 32, 64, 128]),
  numClasses: positive.default(10),
});
export type VggClassifierConfig = z.output<typeof vggClassifierConfig>;
export type VggClassifierOptions = z.input<typeof vggClassifierConfig>;

/** Images of a data set, [N, 1 or 3, H, W] in [-1, 1], as {@link StyleEncoder} takes them: RGB in [0, 1]. */
export const rgbImages = (images: Tensor): Tensor => {
  const scaled = images.add(1).mul(0.5);
  return images.shape[1] === 1 ? concat([scaled, scaled, scaled], 1) : scaled;
};

/** VGG-19 up to relu4_1, however wide, as a classifier: what style transfer's encoder learns to see by. */
export class VggClassifier extends Module {
  static readonly className = 'VggClassifier';
  readonly encoder: StyleEncoder;
  readonly head: Linear;
  readonly config: VggClassifierConfig;

  /** @throws TypeError for a config field that is unknown or out of range. */
  constructor(options: VggClassifierOptions, rng: Generator) {
    super();
    this.config = parseFields(VggClassifier.className, vggClassifierConfig, options);
    this.encoder = new StyleEncoder(this.config.channels, rng);
    this.head = new Linear(this.config.channels[3], this.config.numClasses, rng);
  }

  /** @param images [N, 1 or 3, H, W] in [-1, 1]; @returns relu4_1's mean over all positions, [N, channels[3]]. */
  features(images: Tensor): Tensor {
    return this.encoder.forward(rgbImages(images)).mean([2, 3]);
  }

  /** @param features of {@link features}; @returns [N, numClasses], before the softmax. */
  logits(features: Tensor): Tensor {
    return this.head.forward(features);
  }
}
