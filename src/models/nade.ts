import { zeros } from '../array/index.js';
import { Module, parameter } from '../nn/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { relu, type Tensor, type Variable } from '../tensor/index.js';
import { type AutoregressiveModel, checkImages, rasterOrder } from './autoregressive.js';

/**
 * Neural autoregressive distribution estimator (Larochelle & Murray 2011, Uria et al. 2016): variable i is predicted from
 * h_i = relu(c + Σ_{j<i} W_j x_j), and all hidden states of an image are one running sum.
 */
export class NADE extends Module implements AutoregressiveModel {
  static readonly className = 'NADE';
  /** W, [hidden, D] */
  readonly inW: Variable;
  /** c, [hidden] */
  readonly inB: Variable;
  /** V, [D, hidden] */
  readonly hW: Variable;
  /** b, [D] */
  readonly hB: Variable;
  readonly order: Int32Array;

  /** @param hidden units, 500 in the paper. @param rng weights begin as Kaiming's normal ones, biases as zero. */
  constructor(
    readonly shape: readonly [number, number, number],
    hidden: number,
    rng: Generator,
  ) {
    super();
    this.order = rasterOrder(shape);
    const d = this.order.length;
    this.inW = parameter(normalWeights(rng, [hidden, d], { std: Math.sqrt(2 / d) }));
    this.inB = parameter(zeros([hidden]));
    this.hW = parameter(normalWeights(rng, [d, hidden], { std: Math.sqrt(2 / hidden) }));
    this.hB = parameter(zeros([d]));
  }

  forward(x: Tensor): Tensor {
    checkImages('NADE', this.shape, x);
    const d = this.order.length;
    const added = x.reshape([-1, d, 1]).mul(this.inW.transpose()); // [N, D, hidden]
    const hidden = relu(added.cumsum(1).sub(added).add(this.inB));
    return hidden.mul(this.hW).sum(2).add(this.hB).reshape(x.shape);
  }
}
