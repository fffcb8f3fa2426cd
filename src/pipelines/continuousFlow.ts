import { type NdArray, ndarray } from '../array/index.js';
import { continuousFlowSlopes, type Flow, type FromLatent, type ToLatent, type VectorField } from '../models/index.js';
import { Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import {
  type OdeOptions,
  odeint,
  odeintAdjoint,
  odeintTraced,
  partsNorm,
  type TracedOdeOptions,
} from '../samplers/index.js';
import { type CompileOptions, compile, constant, gradients, rand, randn, type Tensor } from '../tensor/index.js';

export interface TraceOptions {
  /** Times of the data and of the latents; default [0, 1]. */
  readonly times?: readonly [number, number];
  /** f(t, y) - y in place of f; default false. */
  readonly residual?: boolean;
}

export interface ContinuousFlowOptions extends TraceOptions {
  readonly field: VectorField;
  /** Default: dopri5 with relative and absolute tolerance 1e-5. */
  readonly solver?: OdeOptions;
  /** Of the states; default 'float32'. In float64 tolerances below 1e-6 mean something. */
  readonly dtype?: 'float32' | 'float64';
  readonly compile?: CompileOptions;
}

/** States and the change of their log-density on the way, both as the solver ends. */
export interface FlowSolution {
  /** [N, ...] */
  readonly y: NdArray;
  /** [N, 1], from what was given (default 0): minus the integral of the trace. */
  readonly logp: NdArray;
}

const defaultSolver: OdeOptions = { method: 'dopri5', rtol: 1e-5, atol: 1e-5 };

/**
 * A continuous normalizing flow (Chen et al. 2018; FFJORD, Grathwohl et al. 2019) solved with adaptive steps:
 * x goes to z along dy/dt = f(t, y), and log p(x) = log p(z) - Δ, Δ the integral of -tr ∂f/∂y on that way.
 * Each evaluation is one call of a compiled function. For training in few, equal steps see {@link SteppedFlow}.
 */
export class ContinuousFlow {
  readonly #slopes: (t: NdArray, y: NdArray, e: NdArray[]) => Promise<{ y: NdArray; logp: NdArray }>;
  readonly #products: (
    t: NdArray,
    y: NdArray,
    e: NdArray[],
    a: NdArray[],
  ) => Promise<{ y: NdArray; logp: NdArray; state: NdArray; parameters: NdArray[] }>;
  readonly #release: () => Promise<unknown>;

  constructor(readonly options: ContinuousFlowOptions) {
    const { field, residual } = options;
    const slopes = compile(
      (t: Tensor, y: Tensor, e: Tensor[]) => ({ ...continuousFlowSlopes(field, t, y, e[0], residual) }),
      options.compile,
    );
    const products = compile((t: Tensor, y: Tensor, e: Tensor[], a: Tensor[]) => {
      const { y: dy, logp } = continuousFlowSlopes(field, t, y, e[0], residual);
      const sum = dy.mul(a[0]).sum().add(logp.mul(a[1]).sum());
      const [state, ...parameters] = gradients(sum, [y, ...field.parameters()], constant(1, sum.dtype));
      return { y: dy, logp, state, parameters };
    }, options.compile);
    this.#slopes = slopes;
    this.#products = products;
    this.#release = () => Promise.all([slopes.release(), products.release()]);
  }

  /**
   * Data to latents: `logp` is Δ. @param x [N, ...].
   * @param e noise of Hutchinson's trace, as x; without it the trace is exact.
   */
  forward(x: NdArray, e?: NdArray): Promise<FlowSolution> {
    return this.#solve(x, undefined, e, this.#times);
  }

  /** Latents to data, with `logp` (default 0) going on from what it was there. */
  inverse(z: NdArray, e?: NdArray, logp?: NdArray): Promise<FlowSolution> {
    return this.#solve(z, logp, e, this.#times.toReversed());
  }

  /** log p(x) under standard normal latents, in nats, [N]. */
  async logProb(x: NdArray, e?: NdArray): Promise<NdArray> {
    const { y, logp } = await this.forward(x, e);
    const size = sizeOfOne(y);
    const values = Float64Array.from(logp.data as Float64Array, (delta, n) => {
      const z = (y.data as Float64Array).subarray(n * size, (n + 1) * size);
      return z.reduce((sum, value) => sum - 0.5 * (value * value + Math.log(2 * Math.PI)), 0) - delta;
    });
    return ndarray([...values], [values.length], this.#dtype);
  }

  /**
   * Gradients of a loss by the adjoint method: the states are not kept but solved backwards.
   * @param of the solution of {@link forward} and the loss's gradients with respect to its `y` and `logp`.
   * @returns by the field's parameters' names, and with respect to x.
   */
  async gradients(
    of: { readonly solution: FlowSolution; readonly x: NdArray; readonly y: NdArray; readonly logp: NdArray },
    e?: NdArray,
  ): Promise<{ x: NdArray; parameters: Map<string, NdArray> }> {
    const named = this.options.field.namedParameters();
    const sizes = [...named.values()].map((v) => v.size);
    const { x } = of;
    const [numbers, count] = [x.data.length, x.shape[0]];
    const at = (values: Float64Array) => this.#split(values, x);
    const joined = (...parts: NdArray[]) =>
      Float64Array.from(parts.flatMap((part) => [...(part.data as Float64Array)]));
    const { state, parameters } = await odeintAdjoint(
      async (t, y, a) => {
        const [products, adjoint] = [at(y), at(a)];
        const out = await this.#products(this.#time(t), products.y, e ? [e] : [], [adjoint.y, adjoint.logp]);
        return {
          slope: joined(out.y, out.logp),
          state: joined(out.state, ndarray(new Float64Array(count), [count], 'float64')),
          parameters: joined(...out.parameters),
        };
      },
      [joined(x, zeroLogp(count)), joined(of.solution.y, of.solution.logp)],
      this.#times,
      [new Float64Array(numbers + count), joined(of.y, of.logp)],
      sizes,
      this.#solver,
    );
    let start = 0;
    const slices = [...named].map(([name, v]): [string, NdArray] => {
      start += v.size;
      return [name, ndarray([...parameters.subarray(start - v.size, start)], v.shape, this.#dtype)];
    });
    return { x: at(state).y, parameters: new Map(slices) };
  }

  async release(): Promise<void> {
    await this.#release();
  }

  get #dtype(): 'float32' | 'float64' {
    return this.options.dtype ?? 'float32';
  }
  get #times(): readonly number[] {
    return this.options.times ?? [0, 1];
  }
  get #solver(): OdeOptions {
    return this.options.solver ?? defaultSolver;
  }

  async #solve(y0: NdArray, logp: NdArray | undefined, e: NdArray | undefined, times: readonly number[]) {
    const [numbers, count] = [y0.data.length, y0.shape[0]];
    const state = new Float64Array(numbers + count);
    state.set(y0.data as Float64Array);
    if (logp) state.set(logp.data as Float64Array, numbers);
    if (e && `${e.shape}` !== `${y0.shape}`)
      throw new RangeError(`ContinuousFlow: noise [${e.shape}] for states [${y0.shape}], expected the same shape`);
    const [, end] = await odeint(
      async (t, joint) => {
        const { y, logp: slope } = await this.#slopes(this.#time(t), this.#split(joint, y0).y, e ? [e] : []);
        const slopes = new Float64Array(numbers + count);
        slopes.set(y.data as Float64Array);
        slopes.set(slope.data as Float64Array, numbers);
        return slopes;
      },
      state,
      times,
      { norm: partsNorm([numbers, count]), ...this.#solver },
    );
    return this.#split(end, y0);
  }

  #time(t: number): NdArray {
    return ndarray([t], [], this.#dtype);
  }

  /** A joint state as arrays, y shaped as `like`. */
  #split(joint: Float64Array, like: NdArray): FlowSolution {
    const { length } = like.data;
    const array = (values: Float64Array, shape: readonly number[]): NdArray =>
      this.#dtype === 'float64' ? ndarray(values.slice(), shape, 'float64') : ndarray(Float32Array.from(values), shape);
    return {
      y: array(joint.subarray(0, length), like.shape),
      logp: array(joint.subarray(length), [like.shape[0], 1]),
    };
  }
}

const sizeOfOne = (x: NdArray): number => x.data.length / x.shape[0];
const zeroLogp = (count: number): NdArray => ndarray(new Float64Array(count), [count, 1], 'float64');

export interface SteppedFlowOptions extends TraceOptions, TracedOdeOptions {
  /** Draws Hutchinson's noise anew at each call; without it the trace is exact. A function is asked when it is traced. */
  readonly rng?: Generator | (() => Generator);
  /** What it draws; default 'rademacher', signs at random. */
  readonly noise?: 'rademacher' | 'gaussian';
}

/**
 * A continuous flow in equal steps inside one graph: a {@link Flow} like any other, trained by gradients through the
 * solver. Its inverse is as exact as the steps are small.
 */
export class SteppedFlow<F extends VectorField = VectorField> extends Module implements Flow {
  constructor(
    readonly field: F,
    private readonly options: SteppedFlowOptions = {},
  ) {
    super();
  }

  forward(x: Tensor): ToLatent {
    const { y, logp } = this.#solve(x, this.options.times ?? [0, 1]);
    return { z: y, logDet: logp.neg() };
  }

  inverse(z: Tensor): FromLatent {
    const [from, to] = this.options.times ?? [0, 1];
    const { y, logp } = this.#solve(z, [to, from]);
    return { x: y, logDet: logp.neg() };
  }

  #solve(y0: Tensor, times: readonly [number, number]): { y: Tensor; logp: Tensor } {
    const { noise = 'rademacher', residual } = this.options;
    const rng = typeof this.options.rng === 'function' ? this.options.rng() : this.options.rng;
    const signs = () => rand(y0.shape, rng!).less(0.5).cast('float32').mul(2).sub(1);
    const e = rng && (noise === 'gaussian' ? randn(y0.shape, rng) : signs());
    const [y, logp] = odeintTraced(
      (t, [state]) => {
        const slopes = continuousFlowSlopes(this.field, constant(t), state, e, residual);
        return [slopes.y, slopes.logp];
      },
      [y0, constant(0).expand([y0.shape[0], 1])],
      times,
      this.options,
    );
    return { y, logp: logp.reshape([y0.shape[0]]) };
  }
}
