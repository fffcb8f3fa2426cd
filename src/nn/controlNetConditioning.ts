import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { activate } from './activations.js';
import { Conv2d } from './conv2d.js';
import { Module, zeroed } from './module.js';

export interface ControlNetConditioningConfig {
  readonly conditioningEmbeddingChannels: number;
  /** Default 3. */
  readonly conditioningChannels?: number;
  /** Default [16, 32, 96, 256]: each step after the first halves the image. */
  readonly blockOutChannels?: readonly number[];
}

/** Brings a ControlNet's hint [N, conditioningChannels, H, W] to the latent's size; it starts as zeros (Zhang et al. 2023). */
export class ControlNetConditioningEmbedding extends Module {
  readonly convIn: Conv2d;
  readonly blocks: readonly Conv2d[];
  readonly convOut: Conv2d;

  constructor(config: ControlNetConditioningConfig, rng: Generator) {
    super();
    const { conditioningChannels = 3, blockOutChannels: channels = [16, 32, 96, 256] } = config;
    const conv = (from: number, to: number, stride = 1) => new Conv2d(from, to, 3, { stride, padding: 1 }, rng);
    this.convIn = conv(conditioningChannels, channels[0]);
    this.blocks = channels.slice(1).flatMap((to, i) => [conv(channels[i], channels[i]), conv(channels[i], to, 2)]);
    this.convOut = zeroed(conv(channels.at(-1)!, config.conditioningEmbeddingChannels));
  }

  forward(hint: Tensor): Tensor {
    const features = [this.convIn, ...this.blocks].reduce((x, conv) => activate('silu', conv.forward(x)), hint);
    return this.convOut.forward(features);
  }
}
