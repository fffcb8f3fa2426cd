import { ndarray, zeros } from '../../array/index.js';
import { buffer, Module, parameter } from '../../nn/index.js';
import { constant, type Tensor, type Variable, variance } from '../../tensor/index.js';
import { type Flow, type FromLatent, sameLogDet, type ToLatent } from './flow.js';

let initializing = false;

/**
 * Traces `build` so that every {@link ActNorm} takes its scale and shift from the batch it sees, once the call is
 * done; that happens before training, on its first batch.
 */
export function initializingActNorm<T>(build: () => T): T {
  const outer = initializing;
  initializing = true;
  try {
    return build();
  } finally {
    initializing = outer;
  }
}

export interface ActNormOptions {
  /** Take the first batch's unbiased variance; default false, as in Glow. */
  readonly unbiased?: boolean;
}

const eps = 1e-6;

/**
 * Activation normalisation (Kingma and Dhariwal 2018): z = (x + bias) exp(logs), a trained scale and shift
 * that start where the first batch has mean 0 and variance 1.
 */
export class ActNorm extends Module implements Flow {
  /** [1, ...shape] */
  readonly bias: Variable;
  /** [1, ...shape] */
  readonly logs: Variable;
  /** 1 once a batch has set them. [1] */
  readonly isInitialized: Variable;

  /** @param shape of one sample; axes of size 1 share their scale and shift: [C, 1, 1] for images. */
  constructor(
    readonly shape: readonly number[],
    private readonly options: ActNormOptions = {},
  ) {
    super();
    [this.bias, this.logs] = [parameter(zeros([1, ...shape])), parameter(zeros([1, ...shape]))];
    this.isInitialized = buffer(ndarray([0]));
  }

  forward(x: Tensor): ToLatent {
    const statistics = this.#statistics(x);
    const logs = statistics ? statistics.std.add(eps).log().neg() : this.logs;
    const bias = statistics ? statistics.mean.neg() : this.bias;
    if (statistics) this.#start(logs, bias);
    return { z: x.add(bias).mul(logs.exp()), logDet: this.#logDet(logs, x) };
  }

  /** A batch of latents sets scale and shift, too: to those that normalise x. */
  inverse(z: Tensor): FromLatent {
    const statistics = this.#statistics(z);
    const logs = statistics ? statistics.std.add(eps).log() : this.logs;
    const bias = statistics ? statistics.mean.mul(logs.neg().exp()) : this.bias;
    if (statistics) this.#start(logs, bias);
    return { x: z.mul(logs.neg().exp()).sub(bias), logDet: this.#logDet(logs, z).neg() };
  }

  /** Mean and standard deviation over the batch and all shared axes, when this batch is to be the first. */
  #statistics(x: Tensor): { mean: Tensor; std: Tensor } | undefined {
    if (`${x.shape.length}` !== `${this.bias.rank}` || this.bias.shape.some((n, i) => n !== 1 && n !== x.shape[i]))
      throw new RangeError(`ActNorm: input [${x.shape}], expected [N, ${this.shape}]`);
    if (!initializing) return undefined;
    const axes = this.bias.shape.flatMap((n, i) => (n === 1 ? [i] : []));

    return { mean: x.mean(axes, true), std: variance(x, axes, true, this.options.unbiased).sqrt() };
  }

  #start(logs: Tensor, bias: Tensor): void {
    this.logs.assign(logs);
    this.bias.assign(bias);
    this.isInitialized.assign(constant([1]));
  }

  /** Each scale counts once for every place that shares it. */
  #logDet(logs: Tensor, x: Tensor): Tensor {
    return sameLogDet(logs.sum().mul(x.size / x.shape[0] / logs.size), x);
  }
}
