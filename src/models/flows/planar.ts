import { zeros } from '../../array/index.js';
import { Module, parameter } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { softplus, stopGradient, type Tensor, type Variable, where } from '../../tensor/index.js';
import type { Flow, FromLatent, ToLatent } from './flow.js';

export interface PlanarOptions {
  /** Default 'tanh'; 'leaky_relu' (slope 0.2) has an inverse in closed form. */
  readonly activation?: 'tanh' | 'leaky_relu';
}

const slope = 0.2;
const bisections = 40;

/**
 * Planar flow (Rezende and Mohamed 2015): x = z + û h(w·z + b), which pushes latents along û from a plane.
 * û is u moved along w until w·û > -1, where the map is invertible. Under tanh the inverse solves one monotone
 * equation of w·z for each sample.
 */
export class PlanarFlow extends Module implements Flow {
  /** [1, ...shape] */
  readonly u: Variable;
  /** [1, ...shape] */
  readonly w: Variable;
  /** [1] */
  readonly b: Variable;
  readonly #activation: 'tanh' | 'leaky_relu';

  /** @param shape of one latent. */
  constructor(shape: readonly number[], { activation = 'tanh' }: PlanarOptions, rng: Generator) {
    super();
    const limit = Math.sqrt(2 / shape.reduce((a, b) => a * b, 1));
    this.u = parameter(rng.uniform([1, ...shape], -Math.SQRT2, Math.SQRT2));
    this.w = parameter(rng.uniform([1, ...shape], -limit, limit));
    this.b = parameter(zeros([1]));
    this.#activation = activation;
  }

  forward(x: Tensor): ToLatent {
    const { u, product } = this.#constrained();
    const a =
      this.#activation === 'tanh' ? this.#solve(this.#along(x), product) : this.#unbend(this.#along(x), product);
    const z = x.sub(u.mul(this.#bent(a)));
    return { z, logDet: this.#logDet(a, product).neg() };
  }

  inverse(z: Tensor): FromLatent {
    const { u, product } = this.#constrained();
    const a = this.#along(z);
    return { x: z.add(u.mul(this.#bent(a))), logDet: this.#logDet(a, product) };
  }

  /** û, and w·û = softplus(w·u) - 1. */
  #constrained(): { u: Tensor; product: Tensor } {
    const inner = this.w.mul(this.u).sum();
    const wanted = softplus(inner).sub(1);
    const u = this.u.add(this.w.mul(wanted.sub(inner).div(this.w.square().sum())));
    return { u, product: this.w.mul(u).sum() };
  }

  /** w·z + b, [N, 1, ...]. */
  #along(z: Tensor): Tensor {
    const axes = z.shape.map((_, i) => i).slice(1);
    return this.w
      .mul(z)
      .sum(axes, true)
      .add(this.b.reshape(z.shape.map(() => 1)));
  }

  #bent(a: Tensor): Tensor {
    return this.#activation === 'tanh' ? a.tanh() : a.maximum(a.mul(slope));
  }

  #slope(a: Tensor): Tensor {
    return this.#activation === 'tanh'
      ? a.tanh().square().neg().add(1)
      : a
          .less(0)
          .cast('float32')
          .mul(slope - 1)
          .add(1);
  }

  /** log |1 + w·û h'(a)|, [N]. */
  #logDet(a: Tensor, product: Tensor): Tensor {
    return product.mul(this.#slope(a)).add(1).abs().log().reshape([a.shape[0]]);
  }

  /** a with a + w·û h(a) = target, by h's two straight pieces. */
  #unbend(target: Tensor, product: Tensor): Tensor {
    return target.div(product.mul(this.#slope(target)).add(1));
  }

  /** a with a + w·û tanh(a) = target; it lies within |w·û| of the target. Its gradient is that of the last step. */
  #solve(target: Tensor, product: Tensor): Tensor {
    const reach = product.abs();
    let [low, high] = [stopGradient(target.sub(reach)), stopGradient(target.add(reach))];
    const excess = (a: Tensor) => a.add(product.mul(a.tanh())).sub(target);
    for (let i = 0; i < bisections; i++) {
      const middle = low.add(high).mul(0.5);
      const above = excess(middle).greater(0);
      [low, high] = [where(above, low, middle), where(above, middle, high)];
    }
    const root = stopGradient(low.add(high).mul(0.5));
    return root.sub(excess(root).div(stopGradient(product.mul(this.#slope(root)).add(1))));
  }
}
