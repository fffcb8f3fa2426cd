import { fans, type Generator, kaimingUniform } from '../random/index.js';
import { type ConvOptions, convTranspose2d, type Tensor, type Variable } from '../tensor/index.js';
import { perChannel } from './groupNorm.js';
import { Module, parameter } from './module.js';

export interface ConvTranspose2dOptions extends ConvOptions {
  readonly outputPadding?: number;
  /** Default true. */
  readonly bias?: boolean;
}

/** The transpose of a convolution, [N, C, H, W] to a larger image. Initialised as torch.nn.ConvTranspose2d. */
export class ConvTranspose2d extends Module {
  /** [in, out / groups, kH, kW] */
  readonly weight: Variable;
  /** [out] */
  readonly bias?: Variable;

  constructor(
    inChannels: number,
    outChannels: number,
    kernel: number,
    readonly options: ConvTranspose2dOptions,
    rng: Generator,
  ) {
    super();
    const { groups = 1, bias = true } = options;
    const shape = [inChannels, outChannels / groups, kernel, kernel];
    this.weight = parameter(kaimingUniform(rng, shape));
    const bound = 1 / Math.sqrt(fans(shape).fanIn);
    if (bias) this.bias = parameter(rng.uniform([outChannels], -bound, bound));
  }

  forward(x: Tensor): Tensor {
    const y = convTranspose2d(x, this.weight, this.options);
    return this.bias ? y.add(perChannel(this.bias, y)) : y;
  }
}
