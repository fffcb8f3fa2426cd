import type { Generator } from '../random/index.js';
import { concat, type Tensor } from '../tensor/index.js';
import { LayerNorm } from './layerNorm.js';
import { Linear } from './linear.js';
import { Module } from './module.js';

/** An image's embedding [N, imageDim] as tokens to attend to [N, tokens, contextDim] (Kandinsky 2.2). */
export class ImageProjection extends Module {
  readonly imageEmbeds: Linear;
  readonly norm: LayerNorm;

  constructor(
    imageDim: number,
    contextDim: number,
    readonly tokens: number,
    rng: Generator,
  ) {
    super();
    this.imageEmbeds = new Linear(imageDim, tokens * contextDim, rng);
    this.norm = new LayerNorm(contextDim);
  }

  forward(image: Tensor): Tensor {
    return this.norm.forward(this.imageEmbeds.forward(image).reshape([image.shape[0], this.tokens, -1]));
  }
}

/** Tokens of an image's embedding [N, imageDim], and after them those of a text [N, L, textDim] (Kandinsky 2.1). */
export class TextImageProjection extends Module {
  readonly imageEmbeds: Linear;
  readonly textProj: Linear;

  constructor(
    textDim: number,
    imageDim: number,
    contextDim: number,
    readonly tokens: number,
    rng: Generator,
  ) {
    super();
    this.imageEmbeds = new Linear(imageDim, tokens * contextDim, rng);
    this.textProj = new Linear(textDim, contextDim, rng);
  }

  forward(text: Tensor, image: Tensor): Tensor {
    const ofImage = this.imageEmbeds.forward(image).reshape([image.shape[0], this.tokens, -1]);
    return concat([ofImage, this.textProj.forward(text)], 1);
  }
}
