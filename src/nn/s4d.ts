import { type NdArray, ndarray } from '../array/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { gelu, split, type Tensor, type Variable } from '../tensor/index.js';
import { type Complex, complex, exponential, fromPairs, inverse, plusReal, times } from './complex.js';
import { Dropout } from './dropout.js';
import { Linear } from './linear.js';
import { Module, parameter } from './module.js';
import { diagonalSystem, impulseResponse, respond, type StateSpace } from './stateSpace.js';

export interface S4DOptions {
  readonly dModel: number;
  /** States of each channel, in conjugate pairs; default 64. */
  readonly dState?: number;
  /** Step sizes are drawn between these, evenly in their logarithm; default 0.001. */
  readonly dtMin?: number;
  /** Default 0.1. */
  readonly dtMax?: number;
}

/** The logarithms of step sizes between two bounds [count]. */
export const logSteps = (rng: Generator, count: number, dtMin = 0.001, dtMax = 0.1): NdArray<'float32'> =>
  ndarray(
    Array.from(rng.rand([count]).data, (x) => Number(x) * (Math.log(dtMax) - Math.log(dtMin)) + Math.log(dtMin)),
    [count],
  );

/** A complex normal array as pairs: variance 1/2 in each part. */
export const complexNormal = (rng: Generator, shape: readonly number[]): NdArray<'float32'> =>
  normalWeights(rng, [...shape, 2], { std: Math.SQRT1_2 });

/**
 * S4D-Lin's diagonal state space models (Gu et al. 2022), one a channel: A_n = -1/2 + i pi n at first, B = 1,
 * discretised by zero-order hold. Follows s4d.py of state-spaces/s4.
 */
export class S4DKernel extends Module {
  /** Pairs [H, N / 2, 2] */
  readonly c: Variable;
  /** [H] */
  readonly logDt: Variable;
  /** [H, N / 2] */
  readonly logAReal: Variable;
  /** [H, N / 2] */
  readonly aImag: Variable;

  /** @throws RangeError for an odd number of states. */
  constructor({ dModel, dState = 64, dtMin, dtMax }: S4DOptions, rng: Generator) {
    super();
    if (dState % 2) throw new RangeError(`S4D: ${dState} states, expected pairs of them`);
    const shape = [dModel, dState / 2];
    const filled = (f: (i: number) => number) =>
      parameter(
        ndarray(
          Array.from({ length: (dModel * dState) / 2 }, (_, i) => f(i % shape[1])),
          shape,
        ),
      );
    this.logDt = parameter(logSteps(rng, dModel, dtMin, dtMax));
    this.c = parameter(complexNormal(rng, shape));
    this.logAReal = filled(() => Math.log(0.5));
    this.aImag = filled((n) => Math.PI * n);
  }

  system(): StateSpace {
    const a = complex(this.logAReal.exp().neg(), this.aImag);
    const { decay, input } = zeroOrderHold(a, this.logDt.exp().unsqueeze(1));
    return diagonalSystem(decay, input, fromPairs(this.c));
  }

  /** The convolution's kernel [H, length]. */
  forward(length: number): Tensor {
    return impulseResponse(this.system(), length);
  }
}

/** exp(dt A) and (exp(dt A) - 1) / A. */
export function zeroOrderHold(a: Complex, dt: Tensor): { decay: Complex; input: Complex } {
  const decay = exponential(complex(a.re.mul(dt), a.im.mul(dt)));
  return { decay, input: times(plusReal(decay, -1), inverse(a)) };
}

export interface S4DLayerOptions extends S4DOptions {
  readonly dropout?: number;
  /** Channels before tokens: [N, H, L]; default true. */
  readonly transposed?: boolean;
  /** Adds a second system that reads from the end to the start; default false. */
  readonly bidirectional?: boolean;
}

/**
 * An S4D layer: the state space models of all channels, a skip, GELU, and a gated mixing of channels.
 * Linear in length: the convolution is taken by chunks, not by Fourier transforms.
 */
export class S4D extends Module {
  /** Skip [H] */
  readonly d: Variable;
  readonly kernel: S4DKernel;
  /** Of a bidirectional layer: the systems that read backwards. */
  readonly backward?: S4DKernel;
  readonly outputLinear: Linear;
  private readonly dropout: Dropout;

  constructor(
    readonly options: S4DLayerOptions,
    rng: Generator,
  ) {
    super();
    const { dModel, dropout = 0, bidirectional } = options;
    this.d = parameter(normalWeights(rng, [dModel]));
    this.kernel = new S4DKernel(options, rng);
    if (bidirectional) this.backward = new S4DKernel(options, rng);
    this.outputLinear = new Linear(dModel, 2 * dModel, rng);
    this.dropout = new Dropout(dropout);
  }

  /** @param x [N, H, L], or [N, L, H] when not `transposed`. @returns the same shape */
  forward(x: Tensor): Tensor {
    const transposed = this.options.transposed ?? true;
    const u = transposed ? x : x.swapAxes(1, 2);
    const forth = respond(this.kernel.system(), u).add(u.mul(this.d.unsqueeze(1)));
    const back = this.backward && respond(this.backward.system(), u.flip(2)).flip(2);
    const y = this.dropout.forward(gelu(back ? forth.add(back) : forth)).swapAxes(1, 2);
    const [value, gate] = split(this.outputLinear.forward(y), 2, 2);
    const mixed = value.mul(gate.sigmoid());
    return transposed ? mixed.swapAxes(1, 2) : mixed;
  }
}
