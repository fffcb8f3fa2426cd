import { zeros } from '../../array/index.js';
import { buffer, Module, parameter } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { randn, softplus, type Tensor, type Variable } from '../../tensor/index.js';
import { type Flow, type FromLatent, sumPerSample, type ToLatent } from './flow.js';

/** A distribution of latents. */
export interface BaseDistribution {
  /** log p(z) of [N, ...shape], [N]. */
  logProb(z: Tensor): Tensor;
  /** Draws anew at each call. @param temperature multiplies the spread. */
  sample(count: number, temperature: number, rng: Generator): Tensor;
}

/** log N(z; 0, 1) in nats, [N]. */
export const standardNormalLogProb = (z: Tensor): Tensor =>
  sumPerSample(
    z
      .square()
      .add(Math.log(2 * Math.PI))
      .mul(-0.5),
  );

/** Independent normal latents; their means and spreads may be trained. */
export class DiagonalNormal extends Module implements BaseDistribution {
  /** [1, ...shape] */
  readonly loc: Variable;
  /** [1, ...shape] */
  readonly logScale: Variable;

  constructor(
    readonly shape: readonly number[],
    { trainable = true } = {},
  ) {
    super();
    const make = trainable ? parameter : buffer;
    [this.loc, this.logScale] = [make(zeros([1, ...shape])), make(zeros([1, ...shape]))];
  }

  logProb(z: Tensor): Tensor {
    const standard = z.sub(this.loc).mul(this.logScale.neg().exp());
    return standardNormalLogProb(standard).sub(this.logScale.sum());
  }

  sample(count: number, temperature: number, rng: Generator): Tensor {
    return randn([count, ...this.shape], rng)
      .mul(this.logScale.exp().mul(temperature))
      .add(this.loc);
  }
}

/** NICE's heavier-tailed latents: log p(z) = -softplus(z) - softplus(-z) for each. */
export class StandardLogistic extends Module implements BaseDistribution {
  constructor(readonly shape: readonly number[]) {
    super();
  }

  logProb(z: Tensor): Tensor {
    return sumPerSample(softplus(z).add(softplus(z.neg())).neg());
  }

  sample(count: number, temperature: number, rng: Generator): Tensor {
    const u = randn([count, ...this.shape], rng)
      .mul(Math.SQRT1_2)
      .erf()
      .mul(0.5)
      .add(0.5)
      .clamp(1e-6, 1 - 1e-6);
    return u.log().sub(u.neg().add(1).log()).mul(temperature);
  }
}

/** A density: latents of a simple distribution through a flow. */
export class FlowModel<F extends Flow = Flow, B extends BaseDistribution & Module = BaseDistribution & Module>
  extends Module
  implements Flow
{
  constructor(
    readonly base: B,
    readonly flow: F,
  ) {
    super();
  }

  forward(x: Tensor): ToLatent {
    return this.flow.forward(x);
  }

  inverse(z: Tensor): FromLatent {
    return this.flow.inverse(z);
  }

  /** log p(x) = log p(z) + log |det ∂z/∂x| in nats, [N]. Its negative mean is the loss of training. */
  logProb(x: Tensor): Tensor {
    const { z, logDet } = this.flow.forward(x);
    return this.base.logProb(z).add(logDet);
  }

  /** Draws anew at each call. @param temperature spreads the latents less (below 1) or more. */
  sample(count: number, temperature: number, rng: Generator): Tensor {
    return this.flow.inverse(this.base.sample(count, temperature, rng)).x;
  }
}
