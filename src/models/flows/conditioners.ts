import { zeros } from '../../array/index.js';
import { Conv2d, Linear, Module } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { relu, type Tensor } from '../../tensor/index.js';
import { ActNorm } from './actNorm.js';

/** What a coupling reads its shift and scale from: any network, as it is never inverted. */
export interface Conditioner extends Module {
  forward(x: Tensor): Tensor;
}

const leakyRelu = (x: Tensor, slope: number): Tensor => (slope === 0 ? relu(x) : x.maximum(x.mul(slope)));

const startAtZero = (layer: Linear | Conv2d): void => {
  for (const v of layer.parameters()) v.set(zeros(v.shape));
};

export interface ConditionerOptions {
  /** Slope of the rectifier below 0; default 0. */
  readonly leaky?: number;
  /** The last layer begins at zero, and so the coupling as the identity. */
  readonly zeroInit?: boolean;
}

export interface MlpOptions extends ConditionerOptions {
  /** Answers stay within ± this by a tanh, so that densities stay finite far from the data; default: they do not. */
  readonly limit?: number;
}

/** Linear layers with rectifiers between them. */
export class MLP extends Module implements Conditioner {
  readonly layers: readonly Linear[];
  readonly #leaky: number;
  readonly #limit?: number;

  /** @param sizes of the input, the hidden layers and the output. */
  constructor(sizes: readonly number[], { leaky = 0, zeroInit = false, limit }: MlpOptions, rng: Generator) {
    super();
    [this.#leaky, this.#limit] = [leaky, limit];
    this.layers = sizes.slice(1).map((size, i) => new Linear(sizes[i], size, rng));
    if (zeroInit) startAtZero(this.layers[this.layers.length - 1]);
  }

  forward(x: Tensor): Tensor {
    const last = this.layers.length - 1;
    const answer = this.layers.reduce(
      (y, layer, i) => (i < last ? leakyRelu(layer.forward(y), this.#leaky) : layer.forward(y)),
      x,
    );
    return this.#limit === undefined ? answer : answer.div(this.#limit).tanh().mul(this.#limit);
  }
}

export interface ConvNetOptions extends ConditionerOptions {
  /** Actnorm after every convolution but the last, in place of biases. */
  readonly actNorm?: boolean;
}

/** Convolutions that keep the image's size, with rectifiers between them. */
export class ConvNet extends Module implements Conditioner {
  readonly layers: readonly Conv2d[];
  readonly norms: readonly ActNorm[];
  readonly #leaky: number;

  /** @param channels one more than there are kernels, whose sizes are odd. */
  constructor(
    channels: readonly number[],
    kernels: readonly number[],
    { leaky = 0, zeroInit = true, actNorm = false }: ConvNetOptions,
    rng: Generator,
  ) {
    super();
    this.#leaky = leaky;
    const last = kernels.length - 1;
    this.layers = kernels.map((kernel, i) => {
      const options = { padding: Math.floor(kernel / 2), bias: i === last || !actNorm };
      return new Conv2d(channels[i], channels[i + 1], kernel, options, rng);
    });
    this.norms = actNorm ? kernels.slice(1).map((_, i) => new ActNorm([channels[i + 1], 1, 1])) : [];
    if (zeroInit) startAtZero(this.layers[last]);
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer, i) => {
      const convolved = layer.forward(y);
      if (i === this.layers.length - 1) return convolved;
      return leakyRelu(this.norms[i]?.forward(convolved).z ?? convolved, this.#leaky);
    }, x);
  }
}
