import { biasUniform, type Generator, kaimingUniform } from '../random/index.js';
import { type ConvOptions, conv2d, type Tensor, type Variable } from '../tensor/index.js';
import { plusLowRank } from './lora.js';
import { Module, parameter } from './module.js';

export interface Conv2dOptions extends ConvOptions {
  /** Default true. */
  readonly bias?: boolean;
}

/** Cross-correlation of [N, C, H, W] with a kernel of one size or [height, width]. Initialised as torch.nn.Conv2d. */
export class Conv2d extends Module {
  /** [out, in / groups, kH, kW] */
  readonly weight: Variable;
  /** [out] */
  readonly bias?: Variable;

  /** @throws RangeError when the groups do not divide both channel counts. */
  constructor(
    inChannels: number,
    outChannels: number,
    kernel: number | readonly [number, number],
    readonly options: Conv2dOptions,
    rng: Generator,
  ) {
    super();
    const { groups = 1, bias = true } = options;
    if (inChannels % groups || outChannels % groups)
      throw new RangeError(
        `Conv2d: ${groups} groups do not divide ${inChannels} input and ${outChannels} output channels`,
      );
    const [height, width] = typeof kernel === 'number' ? [kernel, kernel] : kernel;
    const shape = [outChannels, inChannels / groups, height, width];
    this.weight = parameter(kaimingUniform(rng, shape));
    if (bias) this.bias = parameter(biasUniform(rng, shape));
  }

  forward(x: Tensor): Tensor {
    const y = conv2d(x, this.weight, this.bias, this.options);
    return plusLowRank(this, y, ({ down, up }) => conv2d(conv2d(x, down, undefined, this.options), up));
  }
}
