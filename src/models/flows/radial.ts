import { ndarray } from '../../array/index.js';
import { Module, parameter } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { softplus, type Tensor, type Variable } from '../../tensor/index.js';
import type { Flow, FromLatent, ToLatent } from './flow.js';

/**
 * Radial flow (Rezende and Mohamed 2015): x = z + β (z - z₀) / (|α| + r), r = |z - z₀|, which pulls latents towards a
 * point or pushes them from it. β = softplus(beta) - |α| keeps it invertible; the inverse is the root of a quadratic.
 */
export class RadialFlow extends Module implements Flow {
  /** [1] */
  readonly alpha: Variable;
  /** [1] */
  readonly beta: Variable;
  /** z₀, [1, ...shape] */
  readonly center: Variable;

  /** @param shape of one latent. */
  constructor(shape: readonly number[], rng: Generator) {
    super();
    const limit = 1 / shape.reduce((a, b) => a * b, 1);
    this.beta = parameter(rng.uniform([1], -limit - 1, limit - 1));
    this.alpha = parameter(rng.uniform([1], -limit, limit));
    this.center = parameter(ndarray(rng.randn([1, ...shape]).data, [1, ...shape]));
  }

  forward(x: Tensor): ToLatent {
    const [alpha, beta] = this.#constants(x.rank);
    const offset = x.sub(this.center);
    const beyond = norm(offset).sub(alpha).sub(beta);
    // r + β r / (α + r) = |x - z₀|, whose other root is negative.
    const r = beyond
      .square()
      .add(alpha.mul(norm(offset)).mul(4))
      .sqrt()
      .add(beyond)
      .mul(0.5);
    const z = this.center.add(offset.div(beta.div(alpha.add(r)).add(1)));
    return { z, logDet: this.#logDet(r, alpha, beta).neg() };
  }

  inverse(z: Tensor): FromLatent {
    const [alpha, beta] = this.#constants(z.rank);
    const offset = z.sub(this.center);
    const r = norm(offset);
    return { x: z.add(offset.mul(beta.div(alpha.add(r)))), logDet: this.#logDet(r, alpha, beta) };
  }

  /** |α| and β, of as many axes as the latents. */
  #constants(rank: number): [Tensor, Tensor] {
    const alpha = this.alpha.abs();
    const beta = softplus(this.beta).sub(alpha);
    const shape = Array.from({ length: rank }, () => 1);
    return [alpha.reshape(shape), beta.reshape(shape)];
  }

  /** (d - 1) log(1 + βh) + log(1 + βh + βh'r), [N]. */
  #logDet(r: Tensor, alpha: Tensor, beta: Tensor): Tensor {
    const h = beta.div(alpha.add(r));
    const along = h
      .sub(beta.mul(r).div(alpha.add(r).square()))
      .add(1)
      .log();
    return h
      .add(1)
      .log()
      .mul(this.center.size - 1)
      .add(along)
      .reshape([r.shape[0]]);
  }
}

const norm = (x: Tensor): Tensor =>
  x
    .square()
    .sum(x.shape.map((_, i) => i).slice(1), true)
    .sqrt();
