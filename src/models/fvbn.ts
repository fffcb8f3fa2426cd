import { ndarray, zeros } from '../array/index.js';
import { Module, parameter } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { constant, linear, type Tensor, type Variable } from '../tensor/index.js';
import { type AutoregressiveModel, checkImages, rasterOrder } from './autoregressive.js';

/**
 * Fully visible sigmoid belief network (Neal 1992, Frey 1998): a logistic regression of each variable on all before it.
 */
export class FullyVisibleBeliefNetwork extends Module implements AutoregressiveModel {
  static readonly className = 'FullyVisibleBeliefNetwork';
  /** Of variable i on variable j, [D, D]; only j < i counts. */
  readonly weight: Variable;
  /** [D] */
  readonly bias: Variable;
  readonly order: Int32Array;

  /** @param rng each row begins as torch.nn.Linear of as many inputs. */
  constructor(
    readonly shape: readonly [number, number, number],
    rng: Generator,
  ) {
    super();
    this.order = rasterOrder(shape);
    const d = this.order.length;
    const weight = zeros([d, d]);
    const bias = new Float32Array(d);
    for (let i = 0; i < d; i++) {
      const bound = 1 / Math.sqrt(Math.max(1, i));
      for (const [j, u] of rng.rand([i]).data.entries()) weight.data[i * d + j] = (2 * u - 1) * bound;
      bias[i] = (2 * rng.rand([1]).data[0] - 1) * bound;
    }
    this.weight = parameter(weight);
    this.bias = parameter(ndarray(bias));
  }

  forward(x: Tensor): Tensor {
    checkImages('FullyVisibleBeliefNetwork', this.shape, x);
    const d = this.order.length;
    return linear(x.reshape([-1, d]), this.weight.mul(before(d)), this.bias).reshape(x.shape);
  }
}

/** 1 below the diagonal, [d, d]. */
function before(d: number): Tensor {
  const mask = Float32Array.from({ length: d * d }, (_, at) => (at % d < Math.floor(at / d) ? 1 : 0));
  return constant(ndarray(mask, [d, d]));
}
