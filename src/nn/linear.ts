import { biasUniform, Generator, kaimingUniform } from '../random/index.js';
import { linear, type Tensor, type Variable } from '../tensor/index.js';
import { plusLowRank } from './lora.js';
import { Module, parameter } from './module.js';

export interface LinearOptions {
  /** Default true. */
  readonly bias?: boolean;
}

/** y = x Wᵀ + b over the last axis: [..., in] to [..., out]. Initialised as torch.nn.Linear. */
export class Linear extends Module {
  /** [out, in] */
  readonly weight: Variable;
  /** [out] */
  readonly bias?: Variable;

  constructor(inFeatures: number, outFeatures: number, rng: Generator);
  constructor(inFeatures: number, outFeatures: number, options: LinearOptions, rng: Generator);
  constructor(inFeatures: number, outFeatures: number, first: LinearOptions | Generator, last?: Generator) {
    super();
    const [options, rng] = first instanceof Generator ? [{}, first] : [first, last!];
    const shape = [outFeatures, inFeatures];
    this.weight = parameter(kaimingUniform(rng, shape));
    if (options.bias ?? true) this.bias = parameter(biasUniform(rng, shape));
  }

  forward(x: Tensor): Tensor {
    const y = linear(x, this.weight, this.bias);
    return plusLowRank(this, y, ({ down, up }) => linear(linear(x, down), up));
  }
}
