import { type Generator, normalWeights } from '../random/index.js';
import { concat, scaledDotProductAttention, type Tensor, type Variable } from '../tensor/index.js';
import { Activation } from './activations.js';
import { Conv2d } from './conv2d.js';
import { LayerNorm } from './layerNorm.js';
import { Linear } from './linear.js';
import { Module, parameter } from './module.js';

/** Sums up tokens [N, L, dim] as one [N, dim]: their mean, at a learned position, attends to itself and to them. */
export class AttentionPooling extends Module {
  readonly positionalEmbedding: Variable;
  readonly kProj: Linear;
  readonly qProj: Linear;
  readonly vProj: Linear;

  /** @throws RangeError when the heads do not divide the width. */
  constructor(
    readonly heads: number,
    dim: number,
    rng: Generator,
  ) {
    super();
    if (dim % heads) throw new RangeError(`AttentionPooling: ${heads} heads do not divide a width of ${dim}`);
    this.positionalEmbedding = parameter(normalWeights(rng, [1, dim], { std: 1 / Math.sqrt(dim) }));
    this.kProj = new Linear(dim, dim, rng);
    this.qProj = new Linear(dim, dim, rng);
    this.vProj = new Linear(dim, dim, rng);
  }

  forward(tokens: Tensor): Tensor {
    const [n, , dim] = tokens.shape;
    const summary = tokens.mean(1, true).add(this.positionalEmbedding);
    const all = concat([summary, tokens], 1);
    const project = (layer: Linear, x: Tensor) =>
      layer.forward(x).reshape([n, x.shape[1], this.heads, -1]).transpose([0, 2, 1, 3]);
    const [q, k, v] = [project(this.qProj, summary), project(this.kProj, all), project(this.vProj, all)];
    return scaledDotProductAttention(q, k, v).reshape([n, dim]);
  }
}

/** Text [N, L, encoderDim] as one vector beside the timestep's [N, timeEmbedDim] (DeepFloyd IF). */
export class TextTimeEmbedding extends Module {
  readonly norm1: LayerNorm;
  readonly pool: AttentionPooling;
  readonly proj: Linear;
  readonly norm2: LayerNorm;

  constructor(encoderDim: number, timeEmbedDim: number, heads: number, rng: Generator) {
    super();
    this.norm1 = new LayerNorm(encoderDim);
    this.pool = new AttentionPooling(heads, encoderDim, rng);
    this.proj = new Linear(encoderDim, timeEmbedDim, rng);
    this.norm2 = new LayerNorm(timeEmbedDim);
  }

  forward(text: Tensor): Tensor {
    return this.norm2.forward(this.proj.forward(this.pool.forward(this.norm1.forward(text))));
  }
}

/** Pooled text [N, textDim] and image [N, imageDim] as one vector [N, timeEmbedDim] (Kandinsky 2.1). */
export class TextImageTimeEmbedding extends Module {
  readonly textProj: Linear;
  readonly textNorm: LayerNorm;
  readonly imageProj: Linear;

  constructor(textDim: number, imageDim: number, timeEmbedDim: number, rng: Generator) {
    super();
    this.textProj = new Linear(textDim, timeEmbedDim, rng);
    this.textNorm = new LayerNorm(timeEmbedDim);
    this.imageProj = new Linear(imageDim, timeEmbedDim, rng);
  }

  forward(text: Tensor, image: Tensor): Tensor {
    return this.imageProj.forward(image).add(this.textNorm.forward(this.textProj.forward(text)));
  }
}

/** An image's embedding [N, imageDim] as a vector [N, timeEmbedDim] (Kandinsky 2.2). */
export class ImageTimeEmbedding extends Module {
  readonly imageProj: Linear;
  readonly imageNorm: LayerNorm;

  constructor(imageDim: number, timeEmbedDim: number, rng: Generator) {
    super();
    this.imageProj = new Linear(imageDim, timeEmbedDim, rng);
    this.imageNorm = new LayerNorm(timeEmbedDim);
  }

  forward(image: Tensor): Tensor {
    return this.imageNorm.forward(this.imageProj.forward(image));
  }
}

/** The same, and a hint [N, 3, 8 H, 8 W] (a depth map, say) as further channels [N, 4, H, W] of the latent. */
export class ImageHintTimeEmbedding extends ImageTimeEmbedding {
  readonly inputHintBlock: readonly (Conv2d | Activation)[];

  constructor(imageDim: number, timeEmbedDim: number, rng: Generator) {
    super(imageDim, timeEmbedDim, rng);
    const widths = [3, 16, 16, 32, 32, 96, 96, 256, 4];
    const halves = [32, 96, 256];
    this.inputHintBlock = widths.slice(1).flatMap((to, i) => {
      const stride = to !== widths[i] && halves.includes(to) ? 2 : 1;
      const conv = new Conv2d(widths[i], to, 3, { stride, padding: 1 }, rng);
      return i === 0 ? [conv] : [new Activation('silu'), conv];
    });
  }

  hint(image: Tensor): Tensor {
    return this.inputHintBlock.reduce((x, layer) => layer.forward(x), image);
  }
}
