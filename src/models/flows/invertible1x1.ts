import { type NdArray, ndarray } from '../../array/index.js';
import { buffer, Module, parameter } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { constant, conv2d, draw, stopGradient, type Tensor, type Variable } from '../../tensor/index.js';
import { checkInput, type Flow, type FromLatent, sameLogDet, type ToLatent } from './flow.js';
import { inverse, logAbsDet, luFactors, randomRotation } from './matrix.js';

/**
 * Invertible 1x1 convolution (Kingma and Dhariwal 2018): z = W x over the channels of each pixel, which replaces a
 * fixed permutation; log |det| = height · width · log |det W|. It begins as a rotation.
 * What W alone decides (its inverse, its determinant) the host computes in float64 at each call.
 */
abstract class ChannelMixing extends Module implements Flow {
  constructor(readonly channels: number) {
    super();
    if (!(Number.isInteger(channels) && channels > 0))
      throw new RangeError(`${new.target.name}: ${channels} channels, expected a whole number from 1`);
  }

  /** W, [C, C]. */
  protected abstract matrix(): Tensor;
  /** W's present values. */
  protected abstract values(): ArrayLike<number>;
  /** log |det W|, []. */
  protected abstract logAbsDet(): Tensor;

  forward(x: Tensor): ToLatent {
    checkInput(this.constructor.name, x, 4, this.channels);
    return { z: mixed(x, this.matrix()), logDet: this.#logDet(x) };
  }

  inverse(z: Tensor): FromLatent {
    checkInput(this.constructor.name, z, 4, this.channels);
    return { x: mixed(z, this.inverseMatrix()), logDet: this.#logDet(z).neg() };
  }

  /** W⁻¹, with the gradient -W⁻¹ dW W⁻¹. */
  protected inverseMatrix(): Tensor {
    const n = this.channels;
    const given = draw([n, n], 'float32', () => matrixOf(inverse(this.constructor.name, this.values(), n), n));
    const matrix = this.matrix();
    return given.sub(given.matmul(matrix.sub(stopGradient(matrix))).matmul(given));
  }

  #logDet(x: Tensor): Tensor {
    return sameLogDet(this.logAbsDet().mul(x.shape[2] * x.shape[3]), x);
  }
}

const mixed = (x: Tensor, matrix: Tensor): Tensor => conv2d(x, matrix.reshape([...matrix.shape, 1, 1]));

const matrixOf = (values: ArrayLike<number>, n: number): NdArray<'float32'> =>
  ndarray(Float32Array.from(values), [n, n]);

/** The convolution with W itself as its parameter. */
export class Invertible1x1Conv extends ChannelMixing {
  /** [C, C] */
  readonly weight: Variable;

  constructor(channels: number, rng: Generator) {
    super(channels);
    this.weight = parameter(matrixOf(randomRotation(channels, rng), channels));
  }

  protected override matrix(): Tensor {
    return this.weight;
  }

  protected override values(): ArrayLike<number> {
    return this.weight.value.data as Float32Array;
  }

  /** Its gradient is that of log |det|: W⁻ᵀ. */
  protected override logAbsDet(): Tensor {
    const { channels: n } = this;
    const name = this.constructor.name;
    const value = draw([], 'float32', () => ndarray([logAbsDet(name, this.values(), n)], []));
    const given = draw([n, n], 'float32', () => matrixOf(inverse(name, this.values(), n), n));
    return value.add(
      given
        .transpose()
        .mul(this.weight.sub(stopGradient(this.weight)))
        .sum(),
    );
  }
}

/** The convolution with W = P L (U + diag(s)), whose determinant is the product of s; P and the signs of s are fixed. */
export class LuInvertible1x1Conv extends ChannelMixing {
  /** A permutation, [C, C]. */
  readonly p: Variable;
  /** [C, C], of which the part below the diagonal counts; the diagonal is 1. */
  readonly l: Variable;
  /** [C, C], of which the part above the diagonal counts. */
  readonly u: Variable;
  /** log |s|, [C] */
  readonly logS: Variable;
  /** [C] */
  readonly signS: Variable;

  constructor(channels: number, rng: Generator) {
    super(channels);
    const n = channels;
    const { rows, lu } = luFactors('LuInvertible1x1Conv', randomRotation(n, rng), n);
    const entries = (of: (i: number, j: number) => number) =>
      matrixOf(
        Float64Array.from({ length: n * n }, (_, k) => of(Math.floor(k / n), k % n)),
        n,
      );
    this.p = buffer(entries((i, j) => Number(rows[j] === i)));
    this.l = parameter(entries((i, j) => (j < i ? lu[i * n + j] : 0)));
    this.u = parameter(entries((i, j) => (j > i ? lu[i * n + j] : 0)));
    const diagonal = Array.from({ length: n }, (_, i) => lu[i * n + i]);
    this.logS = parameter(ndarray(diagonal.map((s) => Math.log(Math.abs(s)))));
    this.signS = buffer(ndarray(diagonal.map(Math.sign)));
  }

  protected override matrix(): Tensor {
    const n = this.channels;
    const mask = (of: (i: number, j: number) => boolean) =>
      constant(
        matrixOf(
          Float32Array.from({ length: n * n }, (_, k) => Number(of(Math.floor(k / n), k % n))),
          n,
        ),
      );
    const eye = mask((i, j) => i === j);
    const lower = this.l.mul(mask((i, j) => j < i)).add(eye);
    const upper = this.u.mul(mask((i, j) => j > i)).add(eye.mul(this.signS.mul(this.logS.exp())));
    return this.p.matmul(lower.matmul(upper));
  }

  protected override values(): ArrayLike<number> {
    const n = this.channels;
    const [p, l, u, logS, signS] = [this.p, this.l, this.u, this.logS, this.signS].map(
      (v) => v.value.data as Float32Array,
    );
    const product = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        for (let k = 0; k <= Math.min(i, j); k++)
          product[i * n + j] += (k === i ? 1 : l[i * n + k]) * (k === j ? signS[k] * Math.exp(logS[k]) : u[k * n + j]);
    const permuted = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let k = 0; k < n; k++)
        if (p[i * n + k] !== 0) for (let j = 0; j < n; j++) permuted[i * n + j] += p[i * n + k] * product[k * n + j];
    return permuted;
  }

  protected override logAbsDet(): Tensor {
    return this.logS.sum();
  }
}
