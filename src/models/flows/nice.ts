import { zeros } from '../../array/index.js';
import { Module, parameter } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { concat, type Tensor, type Variable } from '../../tensor/index.js';
import { MLP } from './conditioners.js';
import { checkEven, type Flow, type FromLatent, noLogDet, sameLogDet, type ToLatent } from './flow.js';

/** z = (x₁, x₂ + m(x₁)) over the halves of x [N, d], or the second half moves the first. */
class AdditiveCoupling extends Module {
  readonly net: MLP;

  constructor(
    features: number,
    hiddenLayers: number,
    hiddenFeatures: number,
    private readonly reverse: boolean,
    rng: Generator,
  ) {
    super();
    const hidden = new Array<number>(hiddenLayers).fill(hiddenFeatures);
    this.net = new MLP([features / 2, ...hidden, features / 2], {}, rng);
  }

  /** @param sign 1 towards latents, -1 back. */
  couple(x: Tensor, sign: 1 | -1): Tensor {
    const half = x.shape[1] / 2;
    const [a, b] = [x.slice(1, 0, half), x.slice(1, half, 2 * half)];
    return this.reverse
      ? concat([a.add(this.net.forward(b).mul(sign)), b], 1)
      : concat([a, b.add(this.net.forward(a).mul(sign))], 1);
  }
}

/** z = x exp(log_scale) for each variable: what gives NICE a volume at all. */
class DiagonalScaling extends Module {
  /** [1, d] */
  readonly logScale: Variable;

  constructor(features: number) {
    super();
    this.logScale = parameter(zeros([1, features]));
  }
}

export interface NiceOptions {
  /** Default 4. At least 3 let every variable act on every other. */
  readonly couplings?: number;
  /** Of each coupling's network; default 5 and 1000. */
  readonly hiddenLayers?: number;
  readonly hiddenFeatures?: number;
}

/**
 * NICE (Dinh et al. 2014): additive couplings of the halves of all variables, by turns, and one trained scale for each.
 * Only the scales change the volume: log |det| is their sum, the same for every sample.
 */
export class NICE extends Module implements Flow {
  readonly couplings: readonly AdditiveCoupling[];
  readonly scaling: DiagonalScaling;

  /** @param features numbers in a sample, of any shape. @throws RangeError when they are odd. */
  constructor(
    readonly features: number,
    { couplings = 4, hiddenLayers = 5, hiddenFeatures = 1000 }: NiceOptions,
    rng: Generator,
  ) {
    super();
    checkEven('NICE', 'features', features);
    this.couplings = Array.from(
      { length: couplings },
      (_, i) => new AdditiveCoupling(features, hiddenLayers, hiddenFeatures, i % 2 === 1, rng),
    );
    this.scaling = new DiagonalScaling(features);
  }

  forward(x: Tensor): ToLatent {
    const coupled = this.couplings.reduce((y, coupling) => coupling.couple(y, 1), this.#flat(x));
    const { logScale } = this.scaling;
    return { z: coupled.mul(logScale.exp()).reshape(x.shape), logDet: sameLogDet(logScale.sum(), x) };
  }

  inverse(z: Tensor): FromLatent {
    const { logScale } = this.scaling;
    const scaled = this.#flat(z).mul(logScale.neg().exp());
    const x = this.couplings.reduceRight((y, coupling) => coupling.couple(y, -1), scaled);
    return { x: x.reshape(z.shape), logDet: noLogDet(z).sub(logScale.sum()) };
  }

  #flat(x: Tensor): Tensor {
    if (x.size !== x.shape[0] * this.features)
      throw new RangeError(`NICE: input [${x.shape}], expected ${this.features} numbers a sample`);
    return x.reshape([x.shape[0], this.features]);
  }
}
