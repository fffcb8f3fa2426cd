import type { Tensor } from '../tensor/index.js';
import type { FixedMethod } from './ode.js';
import { fixedTableaus } from './odeTableaus.js';

export interface TracedOdeOptions {
  /** Default 'rk4'. */
  readonly method?: FixedMethod;
  /** Equal steps; default 8. */
  readonly steps?: number;
}

/**
 * Solves dy/dt = f(t, y) in equal steps inside a compiled function, so that gradients pass through the solver and the
 * states stay on the device. The graph grows with the steps.
 * @param y0 the parts of the state at `from`. @returns those at `to`.
 * @throws RangeError for an unknown method, or steps that are no whole number from 1.
 */
export function odeintTraced(
  f: (t: number, y: readonly Tensor[]) => readonly Tensor[],
  y0: readonly Tensor[],
  [from, to]: readonly [number, number],
  { method = 'rk4', steps = 8 }: TracedOdeOptions = {},
): readonly Tensor[] {
  if (!Object.hasOwn(fixedTableaus, method))
    throw new RangeError(`odeintTraced: method '${method}', expected one of ${Object.keys(fixedTableaus).join(', ')}`);
  if (!(Number.isInteger(steps) && steps > 0))
    throw new RangeError(`odeintTraced: ${steps} steps, expected a whole number from 1`);
  const tableau = fixedTableaus[method];
  const dt = (to - from) / steps;
  let y = y0;
  for (let step = 0; step < steps; step++) {
    const t = from + step * dt;
    const slopes = [f(t, y)];
    const moved = (weights: readonly number[]) =>
      y.map((part, n) =>
        slopes.reduce((sum, slope, i) => (weights[i] ? sum.add(slope[n].mul(weights[i] * dt)) : sum), part),
      );
    for (const [i, weights] of tableau.stages.entries()) slopes.push(f(t + tableau.times[i] * dt, moved(weights)));
    y = moved(tableau.solution);
  }
  return y;
}
