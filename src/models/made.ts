import { ndarray, zeros } from '../array/index.js';
import { buffer, Linear, Module } from '../nn/index.js';
import { type Generator, Mt19937 } from '../random/index.js';
import { linear, relu, type Tensor, type Variable } from '../tensor/index.js';
import { type AutoregressiveModel, checkImages } from './autoregressive.js';

/** A linear layer some of whose weights are held at zero. */
export class MaskedLinear extends Linear {
  /** 1 where a weight counts, [out, in]. */
  readonly mask: Variable;

  constructor(inFeatures: number, outFeatures: number, rng: Generator) {
    super(inFeatures, outFeatures, rng);
    this.mask = buffer(zeros([outFeatures, inFeatures]));
  }

  /** The weights that count. */
  get masked(): Tensor {
    return this.weight.mul(this.mask);
  }

  override forward(x: Tensor): Tensor {
    return linear(x, this.masked, this.bias);
  }
}

export interface MadeOptions {
  /** Units of each hidden layer. */
  readonly hiddenDims: readonly number[];
  /** Which of the random connectivities (and orders of the variables); default 0. */
  readonly maskSeed?: number;
  /** How many variables, from the first on, come first, in raster order; the others follow at random. Default 0. */
  readonly leading?: number;
}

/**
 * Masked autoencoder for distribution estimation (Germain et al. 2015): an autoencoder whose units may see only
 * variables before a random limit each, so that output i depends on the variables before i in a random order.
 */
export class MADE extends Module implements AutoregressiveModel {
  static readonly className = 'MADE';
  readonly layers: readonly MaskedLinear[];
  order: Int32Array;
  private readonly leading: number;

  /** @throws RangeError for fewer than two variables, or a hidden layer without units. */
  constructor(
    readonly shape: readonly [number, number, number],
    { hiddenDims, maskSeed = 0, leading = 0 }: MadeOptions,
    rng: Generator,
  ) {
    super();
    const d = shape[0] * shape[1] * shape[2];
    if (d < 2) throw new RangeError(`MADE: ${d} variables, expected at least 2`);
    if (hiddenDims.some((n) => !(Number.isInteger(n) && n > 0)))
      throw new RangeError(`MADE: hiddenDims [${hiddenDims}], expected whole numbers from 1`);
    const dims = [d, ...hiddenDims, d];
    this.layers = dims.slice(1).map((n, i) => new MaskedLinear(dims[i], n, rng));
    this.leading = leading;
    this.order = this.setMasks(maskSeed);
  }

  /** Another random connectivity. @returns the order in which it predicts the variables. */
  setMasks(maskSeed: number): Int32Array {
    const { masks, ordering } = madeMasks(
      this.shape[0] * this.shape[1] * this.shape[2],
      this.layers.slice(0, -1).map((l) => l.weight.shape[0]),
      maskSeed,
      this.leading,
    );
    for (const [i, layer] of this.layers.entries())
      layer.mask.set(ndarray(Float32Array.from(masks[i]), layer.weight.shape));
    const order = Int32Array.from(ordering.keys()).sort((a, b) => ordering[a] - ordering[b]);
    this.order = order;
    return order;
  }

  forward(x: Tensor): Tensor {
    checkImages('MADE', this.shape, x);
    const last = this.layers.length - 1;
    const input: Tensor = x.reshape([x.shape[0], this.layers[0].weight.shape[1]]);
    const logits = this.layers.reduce((y, layer, i) => (i < last ? relu(layer.forward(y)) : layer.forward(y)), input);
    return logits.reshape(x.shape);
  }
}

/**
 * Each unit's limit, drawn as numpy's RandomState draws, and what may then be connected.
 * @returns masks [out * in] of each layer, and the place of each variable in the order.
 */
export function madeMasks(
  variables: number,
  hiddenDims: readonly number[],
  seed: number,
  leading = 0,
): { masks: Uint8Array[]; ordering: Int32Array } {
  const twister = new Mt19937(seed);
  /** 0..most: bits of the smallest power of two above, until they fit. */
  const draw = (most: number): number => {
    const mask = 2 ** (32 - Math.clz32(most)) - 1;
    for (;;) {
      const value = (twister.draw() & mask) >>> 0;
      if (value <= most) return value;
    }
  };
  const ordering = Int32Array.from({ length: variables }, (_, i) => i);
  for (let i = variables - 1; i > 0; i--) {
    const j = draw(i);
    [ordering[i], ordering[j]] = [ordering[j], ordering[i]];
  }
  let behind = leading;
  const random = Int32Array.from(ordering.keys()).sort((a, b) => ordering[a] - ordering[b]);
  for (const i of random) ordering[i] = i < leading ? i : behind++;
  const limits: Int32Array[] = [ordering];
  for (const [i, units] of hiddenDims.entries()) {
    // The paper's bound is the layer before; pytorch-generative takes the one before that, which is right, too.
    const low = i === 0 ? 0 : limits[i - 1].reduce((a, b) => Math.min(a, b));
    limits.push(Int32Array.from({ length: units }, () => low + draw(variables - 2 - low)));
  }
  limits.push(ordering);
  const masks = limits.slice(1).map((out, layer) => {
    const from = limits[layer];
    const last = layer === limits.length - 2;
    const mask = new Uint8Array(out.length * from.length);
    for (let o = 0; o < out.length; o++)
      for (let i = 0; i < from.length; i++)
        mask[o * from.length + i] = Number(last ? from[i] < out[o] : from[i] <= out[o]);
    return mask;
  });
  return { masks, ordering };
}
