import { type OdeFunction, type OdeOptions, odeint, partsNorm } from './ode.js';

/** A slope with what it passes back: a · ∂f/∂y and a · ∂f/∂θ, all at (t, y). */
export interface VectorJacobian {
  readonly slope: Float64Array;
  readonly state: Float64Array;
  readonly parameters: Float64Array;
}

/** Computes f(t, y) and its products with a. */
export type VectorJacobianFunction = (
  t: number,
  y: Float64Array,
  a: Float64Array,
) => VectorJacobian | Promise<VectorJacobian>;

export interface AdjointGradients {
  /** Of the loss with respect to y(times[0]). */
  readonly state: Float64Array;
  /** Of the loss with respect to all parameters. */
  readonly parameters: Float64Array;
}

/**
 * Gradients through {@link odeint} without keeping its steps (Chen et al. 2018): the adjoint a = ∂loss/∂y is solved
 * backwards together with the state, da/dt = -a · ∂f/∂y. Follows torchdiffeq's odeint_adjoint.
 * @param states what odeint returned for `times`.
 * @param gradients of the loss with respect to each of the states.
 * @param parts sizes of the parameter tensors, whose errors are weighed one by one.
 */
export async function odeintAdjoint(
  vjp: VectorJacobianFunction,
  states: readonly Float64Array[],
  times: readonly number[],
  gradients: readonly Float64Array[],
  parts: readonly number[],
  options: OdeOptions = {},
): Promise<AdjointGradients> {
  const size = states[0].length;
  const count = parts.reduce((sum, part) => sum + part, 0);
  const backwards: OdeFunction = async (t, joint) => {
    const { slope, state, parameters } = await vjp(t, joint.subarray(0, size), joint.subarray(size, 2 * size));
    return Float64Array.from([...slope, ...state.map((x) => -x), ...parameters.map((x) => -x)]);
  };
  const norm = options.norm ?? partsNorm([size, size, ...parts]);
  let adjoint = gradients[times.length - 1].slice();
  let parameters: Float64Array = new Float64Array(count);
  for (let i = times.length - 1; i > 0; i--) {
    const start = Float64Array.from([...states[i], ...adjoint, ...parameters]);
    const [, end] = await odeint(backwards, start, [times[i], times[i - 1]], { ...options, norm });
    adjoint = end.slice(size, 2 * size).map((x, n) => x + gradients[i - 1][n]);
    parameters = end.slice(2 * size);
  }
  return { state: adjoint, parameters };
}
