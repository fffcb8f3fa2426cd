import { Module, type Transformer2DConfig, Transformer2DModel } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import type { SpatialContext, SpatialMixer } from './unetBlocks.js';

/** Tokens of the text, then of the image, in a dual context. */
const conditionLengths = [77, 257];

/**
 * Two transformers side by side, one for each part of a context of 77 text tokens and 257 image tokens, mixed half
 * and half (Versatile Diffusion, Xu et al. 2023): diffusers' DualTransformer2DModel.
 */
export class DualTransformer2D extends Module implements SpatialMixer {
  readonly transformers: readonly [Transformer2DModel, Transformer2DModel];

  constructor(config: Transformer2DConfig, rng: Generator) {
    super();
    this.transformers = [new Transformer2DModel(config, rng), new Transformer2DModel(config, rng)];
  }

  /** @throws Error without a context of at least 78 tokens. */
  forward(x: Tensor, { encoderHiddenStates: context }: SpatialContext = {}): Tensor {
    const [first, second] = conditionLengths;
    if (!context || context.shape[1] <= first)
      throw new Error(
        `DualTransformer2D: context ${context ? `[${context.shape}]` : 'missing'}, expected ${first} text and ${second} image tokens`,
      );
    const text = context.slice(1, 0, first);
    const image = context.slice(1, first, Math.min(first + second, context.shape[1]));
    // The first part of the context is the second transformer's.
    const [forImage, forText] = this.transformers;
    const ofText = forText.forward(x, { encoderHiddenStates: text }).sub(x);
    const ofImage = forImage.forward(x, { encoderHiddenStates: image }).sub(x);
    return ofText.mul(0.5).add(ofImage.mul(0.5)).add(x);
  }
}
