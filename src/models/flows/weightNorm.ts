import { type NdArray, ndarray } from '../../array/index.js';
import { Conv2d, Module, ones, parameter } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { conv2d, type Tensor, type Variable } from '../../tensor/index.js';

/** Weight normalisation (Salimans and Kingma 2016): v's direction with length g, for each entry of axis 0. */
const normed = (g: Tensor, v: Tensor): Tensor =>
  v.mul(
    g.div(
      v
        .square()
        .sum(v.shape.map((_, i) => i).slice(1), true)
        .sqrt(),
    ),
  );

const lengths = ({ data, shape }: NdArray<'float32'>): NdArray<'float32'> => {
  const size = data.length / shape[0];
  const rows = Array.from({ length: shape[0] }, (_, i) => Math.hypot(...data.subarray(i * size, (i + 1) * size)));
  return ndarray(rows, [shape[0], ...shape.slice(1).map(() => 1)]);
};

/** A convolution that keeps the image's size, with normalised weights. */
export class WeightNormConv2d extends Module {
  /** [out] */
  readonly bias?: Variable;
  /** [out, 1, 1, 1] */
  readonly weight_g: Variable;
  /** [out, in, k, k] */
  readonly weight_v: Variable;
  readonly #padding: number;

  constructor(inChannels: number, outChannels: number, kernel: number, { bias = true }, rng: Generator) {
    super();
    const plain = new Conv2d(inChannels, outChannels, kernel, { bias }, rng);
    const v = plain.weight.value as NdArray<'float32'>;
    [this.weight_g, this.weight_v] = [parameter(lengths(v)), parameter(v)];
    this.bias = plain.bias;
    this.#padding = Math.floor(kernel / 2);
  }

  forward(x: Tensor): Tensor {
    return conv2d(x, normed(this.weight_g, this.weight_v), this.bias, { padding: this.#padding });
  }
}

/** A trained factor for each channel of [N, C, H, W], with normalised weights. */
export class WeightNormScale extends Module {
  /** [C, 1, 1] */
  readonly weight_g: Variable;
  /** [C, 1, 1] */
  readonly weight_v: Variable;

  constructor(channels: number) {
    super();
    [this.weight_g, this.weight_v] = [parameter(ones([channels, 1, 1])), parameter(ones([channels, 1, 1]))];
  }

  forward(x: Tensor): Tensor {
    // Of one number the direction is its sign.
    return x.mul(this.weight_g.mul(this.weight_v.sign()));
  }
}
