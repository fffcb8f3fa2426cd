import { z } from 'zod';
import { type NdArray, ndarray, type Shape } from '../../src/array/index.js';
import {
  type OdeFunction,
  type OdeMethod,
  type OdeStep,
  odeint,
  odeintAdjoint,
  type VectorJacobian,
} from '../../src/samplers/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const call = z.object({
  method: z.string().default('dopri5'),
  rtol: z.number().default(1e-7),
  atol: z.number().default(1e-9),
  options: z.object({ step_size: z.number().optional(), interp: z.enum(['linear', 'cubic']).optional() }).default({}),
});

const doubles = (array: NdArray): Float64Array => Float64Array.from(array.data as Float64Array);

/** The cases' field in float64, dy/dt = l2(tanh(l1(cat[y, t]))) for each row of y, with its products backwards. */
export class Field {
  readonly #w1: Float64Array;
  readonly #b1: Float64Array;
  readonly #w2: Float64Array;
  readonly #b2: Float64Array;
  readonly dim: number;
  readonly hidden: number;

  constructor({ weights }: ReferenceCase) {
    const weight = (name: string) => doubles(weights.get(name) ?? ndarray([]));
    [this.#w1, this.#b1] = [weight('l1.weight'), weight('l1.bias')];
    [this.#w2, this.#b2] = [weight('l2.weight'), weight('l2.bias')];
    [this.dim, this.hidden] = [this.#b2.length, this.#b1.length];
  }

  /** Sizes of l1.weight, l1.bias, l2.weight, l2.bias. */
  get parts(): number[] {
    return [this.#w1, this.#b1, this.#w2, this.#b2].map((x) => x.length);
  }

  #activations(t: number, row: Float64Array): Float64Array {
    const input = [...row, t];
    return this.#b1.map((b, h) => Math.tanh(input.reduce((sum, x, i) => sum + this.#w1[h * input.length + i] * x, b)));
  }

  readonly slope = (t: number, y: Float64Array): Float64Array =>
    Float64Array.from(
      rows(y, this.dim).flatMap((row) => {
        const h = this.#activations(t, row);
        return [...this.#b2.map((b, d) => h.reduce((sum, x, i) => sum + this.#w2[d * h.length + i] * x, b))];
      }),
    );

  readonly vjp = (t: number, y: Float64Array, a: Float64Array): VectorJacobian => {
    const { dim, hidden } = this;
    const [w1, b1] = [new Float64Array(this.#w1.length), new Float64Array(hidden)];
    const [w2, b2] = [new Float64Array(this.#w2.length), new Float64Array(dim)];
    const state = rows(y, dim).flatMap((row, n) => {
      const [input, h] = [[...row, t], this.#activations(t, row)];
      const back = a.subarray(n * dim, (n + 1) * dim);
      back.forEach((g, d) => {
        b2[d] += g;
        h.forEach((x, i) => {
          w2[d * hidden + i] += g * x;
        });
      });
      const inner = h.map((x, i) => (1 - x * x) * back.reduce((sum, g, d) => sum + g * this.#w2[d * hidden + i], 0));
      inner.forEach((g, i) => {
        b1[i] += g;
        input.forEach((x, j) => {
          w1[i * input.length + j] += g * x;
        });
      });
      return [...row].map((_, j) => inner.reduce((sum, g, i) => sum + g * this.#w1[i * (dim + 1) + j], 0));
    });
    return {
      slope: this.slope(t, y),
      state: Float64Array.from(state),
      parameters: Float64Array.from([...w1, ...b1, ...w2, ...b2]),
    };
  };
}

const rows = (y: Float64Array, dim: number): Float64Array[] =>
  Array.from({ length: y.length / dim }, (_, n) => y.subarray(n * dim, (n + 1) * dim));

const stack = (states: readonly Float64Array[], shape: Shape, dtype: 'float32' | 'float64' = 'float64'): NdArray =>
  ndarray(
    states.flatMap((y) => [...y]),
    [states.length, ...shape],
    dtype,
  );

/** States at the asked times, forwards and backwards, every attempted step, and what finer steps converge to. */
const solver: Adapter = async (reference) => {
  const { method, rtol, atol, options } = reference.read(z.object({ call })).call;
  const { slope } = new Field(reference);
  const [y0, times] = [reference.input('y0'), [...doubles(reference.input('t'))]];
  const how = { rtol, atol, stepSize: options.step_size, interpolation: options.interp };
  const steps: OdeStep[] = [];
  const solve = (f: OdeFunction, from: Float64Array, at: number[], onStep?: (step: OdeStep) => void) =>
    odeint(f, from, at, { ...how, method: method as OdeMethod, onStep });
  const states = await solve(slope, doubles(y0), times, (step) => steps.push(step));
  const backwards = await solve(slope, states[states.length - 1], times.toReversed());
  const converged = await odeint(slope, doubles(y0), times, { method: 'dopri8', rtol: 1e-12, atol: 1e-12 });
  const attempts = steps.map(({ t, dt, accepted }) => Float64Array.from([t, dt, Number(accepted)]));
  const ours: Outputs = {
    'out.y': stack(states, y0.shape, 'float32'),
    'out.y_float64': stack(states, y0.shape),
    'out.backwards_from_last_float64': stack(backwards, y0.shape),
    'out.y_converged_float64': stack(converged, y0.shape),
    'out.steps_t0_dt_accepted': stack(attempts, [3]),
  };
  return Object.fromEntries(Object.entries(ours).filter(([name]) => reference.tensors.has(name)));
};

/** Gradients of a loss of the last state: the adjoint's, which are also those of backpropagation through the steps. */
const adjoint: Adapter = async (reference) => {
  const { method, rtol, atol } = reference.read(z.object({ call })).call;
  const field = new Field(reference);
  const [y0, times] = [reference.input('y0'), [...doubles(reference.input('t'))]];
  const options = { method: method as OdeMethod, rtol, atol };
  const states = await odeint(field.slope, doubles(y0), times, options);
  const last = doubles(reference.given('loss_weight'));
  const of = states.map((y, i) => (i === states.length - 1 ? last : new Float64Array(y.length)));
  const { state, parameters } = await odeintAdjoint(field.vjp, states, times, of, field.parts, options);
  const outputs: Record<string, NdArray> = {};
  for (const prefix of ['grad_backprop', 'grad_adjoint']) {
    outputs[`${prefix}_in.y0`] = ndarray([...state], y0.shape, 'float64');
    let start = 0;
    for (const [i, name] of ['l1.weight', 'l1.bias', 'l2.weight', 'l2.bias'].entries()) {
      const end = start + field.parts[i];
      const shape = reference.weights.get(name)?.shape ?? [];
      outputs[`${prefix}.${name}`] = ndarray([...parameters.slice(start, end)], shape, 'float64');
      start = end;
    }
  }
  return outputs;
};

export const adapters: Readonly<Record<string, Adapter>> = {
  euler: solver,
  midpoint: solver,
  heun2: solver,
  heun3: solver,
  rk4: solver,
  RKAdaptiveStepsizeODESolver: solver,
  odeint_adjoint: adjoint,
};
