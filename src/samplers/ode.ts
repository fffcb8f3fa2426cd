import { adaptiveTableaus, fixedTableaus, rk45, type Tableau } from './odeTableaus.js';

/** dy/dt at time t; y must not be changed or kept. May be a compiled function, hence the promise. */
export type OdeFunction = (t: number, y: Float64Array) => Float64Array | Promise<Float64Array>;

export type FixedMethod = keyof typeof fixedTableaus;
export type AdaptiveMethod = keyof typeof adaptiveTableaus;
export type OdeMethod = FixedMethod | AdaptiveMethod;
export const odeMethods = [...Object.keys(fixedTableaus), ...Object.keys(adaptiveTableaus)] as readonly OdeMethod[];

/** The size of a state, or of an error, as one number. */
export type Norm = (y: Float64Array) => number;

/** Root of the mean square. */
export const rmsNorm: Norm = (y) => Math.sqrt(y.reduce((sum, x) => sum + x * x, 0) / y.length);

/** For a state of several parts one after the other: the largest of their {@link rmsNorm}s, torchdiffeq's for tuples. */
export const partsNorm =
  (sizes: readonly number[]): Norm =>
  (y) => {
    let start = 0;
    const norms = sizes.map((size) => {
      start += size;
      return size === 0 ? 0 : rmsNorm(y.subarray(start - size, start));
    });
    return Math.max(0, ...norms);
  };

/** One attempted step. */
export interface OdeStep {
  readonly t: number;
  readonly dt: number;
  readonly accepted: boolean;
}

export interface OdeOptions {
  /** Default 'dopri5'. */
  readonly method?: OdeMethod;
  /** Relative and absolute tolerance of one step; adaptive methods only. Default 1e-7 and 1e-9. */
  readonly rtol?: number;
  readonly atol?: number;
  readonly norm?: Norm;
  /** Fixed methods: steps of this size from the first time on, the last cut short; default: from time to time. */
  readonly stepSize?: number;
  /** Fixed methods: how the state between two steps is read. Default 'linear'; 'cubic' costs one more evaluation. */
  readonly interpolation?: 'linear' | 'cubic';
  /** Adaptive methods: the first step; default: Hairer, Norsett and Wanner's guess. */
  readonly firstStep?: number;
  readonly minStep?: number;
  readonly maxStep?: number;
  /** Adaptive methods: the new step is the best one times `safety` (0.9), at most `growth` (10) and at least `shrink` (0.2) times the old. */
  readonly safety?: number;
  readonly growth?: number;
  readonly shrink?: number;
  /** Adaptive methods: attempts between two of the asked times; default 2^31 - 1. */
  readonly maxSteps?: number;
  readonly onStep?: (step: OdeStep) => void;
}

/**
 * Solves dy/dt = f(t, y) from y(times[0]) = y0. Follows torchdiffeq's odeint: the same steps, the same states in between
 * (fourth-order polynomials for the adaptive methods, which step past the asked times).
 * @param times strictly rising or strictly falling.
 * @returns y at every one of the times, the first included.
 * @throws RangeError for unordered times, an unknown method, and when a step underflows or the state is not finite.
 */
export async function odeint(
  f: OdeFunction,
  y0: Float64Array,
  times: readonly number[],
  options: OdeOptions = {},
): Promise<Float64Array[]> {
  const { method = 'dopri5', onStep } = options;
  const sign = times.length > 1 && times[1] < times[0] ? -1 : 1;
  const wrong = times.findIndex((t, i) => i > 0 && !(sign * t > sign * times[i - 1]));
  if (wrong >= 0 || !times.every(Number.isFinite))
    throw new RangeError(`odeint: expected strictly rising or strictly falling times, got ${times.join(', ')}`);
  const rising: OdeFunction = sign > 0 ? f : async (t, y) => (await f(-t, y)).map((slope) => -slope);
  const turned = { ...options, onStep: onStep && ((step: OdeStep) => onStep({ ...step, t: sign * step.t })) };
  const grid = times.map((t) => sign * t);
  if (method in adaptiveTableaus) return adaptive(rising, y0, grid, turned, adaptiveTableaus[method as AdaptiveMethod]);
  if (method in fixedTableaus) return fixed(rising, y0, grid, turned, fixedTableaus[method as FixedMethod]);
  throw new RangeError(`odeint: method: expected one of ${odeMethods.join(', ')}, got '${method}'`);
}

/** y + dt * (weighted slopes). */
function combined(y: Float64Array, slopes: readonly Float64Array[], weights: readonly number[], dt: number) {
  const result = y.slice();
  for (const [i, slope] of slopes.entries()) {
    const weight = (weights[i] ?? 0) * dt;
    if (weight === 0) continue;
    for (let n = 0; n < result.length; n++) result[n] += weight * slope[n];
  }
  return result;
}

/** The slopes of one step, the first given. */
async function slopesOf(
  f: OdeFunction,
  y: Float64Array,
  first: Float64Array,
  t: number,
  dt: number,
  t1: number,
  tableau: Tableau,
) {
  const slopes = [first];
  for (const [i, weights] of tableau.stages.entries()) {
    const time = tableau.times[i] === 1 ? t1 : t + tableau.times[i] * dt;
    slopes.push(await f(time, combined(y, slopes, weights, dt)));
  }
  return slopes;
}

async function fixed(
  f: OdeFunction,
  y0: Float64Array,
  times: readonly number[],
  options: OdeOptions,
  tableau: Tableau,
) {
  const { stepSize, interpolation = 'linear', onStep } = options;
  const grid = stepSize === undefined ? times : evenGrid(times[0], times[times.length - 1], stepSize);
  const results = [y0];
  let y = y0;
  for (let i = 0; i + 1 < grid.length; i++) {
    const [t, t1] = [grid[i], grid[i + 1]];
    const dt = t1 - t;
    onStep?.({ t, dt, accepted: true });
    const slopes = await slopesOf(f, y, await f(t, y), t, dt, t1, tableau);
    const y1 = combined(y, slopes, tableau.solution, dt);
    while (results.length < times.length && t1 >= times[results.length]) {
      const share = (times[results.length] - t) / dt;
      if (interpolation === 'cubic') results.push(hermite(share, y, slopes[0], y1, await f(t1, y1), dt));
      else results.push(share === 1 ? y1 : y.map((value, n) => value + share * (y1[n] - value)));
    }
    y = y1;
  }
  return results;
}

function evenGrid(from: number, to: number, step: number): number[] {
  if (!(step > 0)) throw new RangeError(`odeint: stepSize: expected a number above 0, got ${step}`);
  const grid = Array.from({ length: Math.ceil((to - from) / step + 1) }, (_, i) => from + i * step);
  grid[grid.length - 1] = to;
  return grid;
}

/** Between two states with their slopes, at a share of the way. */
function hermite(h: number, y0: Float64Array, f0: Float64Array, y1: Float64Array, f1: Float64Array, dt: number) {
  const [a, b] = [(1 + 2 * h) * (1 - h) ** 2, h * (1 - h) ** 2];
  const [c, d] = [h * h * (3 - 2 * h), h * h * (h - 1)];
  return y0.map((y, n) => a * y + b * dt * f0[n] + c * y1[n] + d * dt * f1[n]);
}

async function adaptive(
  f: OdeFunction,
  y0: Float64Array,
  times: readonly number[],
  options: OdeOptions,
  tableau: Tableau,
) {
  const { rtol = 1e-7, atol = 1e-9, norm = rmsNorm, minStep = 0, maxStep = Infinity, onStep } = options;
  const { safety = 0.9, growth = 10, shrink = 0.2, maxSteps = 2 ** 31 - 1 } = options;
  const { order } = tableau;
  const results = [y0];
  if (times.length === 1) return results;
  let y = y0;
  let slope = await f(times[0], y0);
  let [from, t] = [times[0], times[0]];
  let next = options.firstStep ?? (await initialStep(f, times[0], y0, slope, { order: order - 1, rtol, atol, norm }));
  let between = (_: number): Float64Array => y0;
  for (const time of times.slice(1)) {
    for (let attempt = 0; time > t; attempt++) {
      if (attempt >= maxSteps) throw new RangeError(`odeint: more than ${maxSteps} steps on the way to t = ${time}`);
      const dt = Math.min(Math.max(Number.isFinite(next) ? next : minStep, minStep), maxStep);
      if (!(t + dt > t)) throw new RangeError(`odeint: step ${dt} at t = ${t} is too small: the problem may be stiff`);
      if (!y.every(Number.isFinite)) throw new RangeError(`odeint: the state at t = ${t} is not finite`);
      const slopes = await slopesOf(f, y, slope, t, dt, t + dt, tableau);
      const y1 = combined(y, slopes, tableau.solution, dt);
      const ratio = errorRatio(y, y1, slopes, dt, tableau, { rtol, atol, norm });
      const accepted = (ratio <= 1 && dt <= maxStep) || dt <= minStep;
      onStep?.({ t, dt, accepted });
      const factor =
        ratio === 0 ? growth : Math.min(growth, Math.max(safety / ratio ** (1 / order), ratio < 1 ? 1 : shrink));
      next = Math.min(Math.max(dt * factor, minStep), maxStep);
      if (!accepted) continue;
      between = polynomial(y, y1, slopes, dt, tableau);
      [from, t, y, slope] = [t, t + dt, y1, slopes[slopes.length - 1]];
    }
    results.push(between((time - from) / (t - from)));
  }
  return results;
}

interface Tolerances {
  readonly rtol: number;
  readonly atol: number;
  readonly norm: Norm;
}

/** Of the estimated error to the allowed one. */
function errorRatio(
  y: Float64Array,
  y1: Float64Array,
  slopes: readonly Float64Array[],
  dt: number,
  tableau: Tableau,
  { rtol, atol, norm }: Tolerances,
) {
  const error = combined(new Float64Array(y.length), slopes, tableau.error ?? [], dt);
  return norm(error.map((e, n) => e / (atol + rtol * Math.max(Math.abs(y[n]), Math.abs(y1[n])))));
}

/** Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section II.4; `limit` bounds the trial step. */
async function initialStep(
  f: OdeFunction,
  t: number,
  y: Float64Array,
  slope: Float64Array,
  how: Tolerances & { order: number; direction?: number; limit?: number },
) {
  const { order, rtol, atol, norm, direction = 1, limit = Infinity } = how;
  const scaled = (x: Float64Array) => norm(x.map((value, n) => value / (atol + rtol * Math.abs(y[n]))));
  const [d0, d1] = [scaled(y), scaled(slope)];
  const trial = Math.min(d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : (0.01 * d0) / d1, limit);
  const after = await f(t + direction * trial, combined(y, [slope], [1], direction * trial));
  const d2 = scaled(after.map((value, n) => value - slope[n])) / trial;
  const guess =
    d1 <= 1e-15 && d2 <= 1e-15 ? Math.max(1e-6, trial * 1e-3) : (0.01 / Math.max(d1, d2)) ** (1 / (order + 1));
  return Math.min(100 * trial, guess, limit);
}

/** The fourth-order polynomial through both ends, their slopes and the middle, over shares of the step. */
function polynomial(y0: Float64Array, y1: Float64Array, slopes: readonly Float64Array[], dt: number, tableau: Tableau) {
  const middle = combined(y0, slopes, tableau.middle ?? [], dt);
  const [f0, f1] = [slopes[0], slopes[slopes.length - 1]];
  return (x: number): Float64Array =>
    y0.map((y, n) => {
      const [u, v] = [dt * f0[n], dt * f1[n]];
      const a = 2 * (v - u) - 8 * (y1[n] + y) + 16 * middle[n];
      const b = 5 * u - 3 * v + 18 * y + 14 * y1[n] - 32 * middle[n];
      const c = v - 4 * u - 11 * y - 5 * y1[n] + 16 * middle[n];
      return y + x * (u + x * (c + x * (b + x * a)));
    });
}

export interface SolveIvpOptions {
  /** Default 1e-3 and 1e-6. */
  readonly rtol?: number;
  readonly atol?: number;
  readonly onStep?: (step: OdeStep) => void;
}

/**
 * Dormand and Prince's method from t0 to exactly t1. Follows scipy's solve_ivp with RK45: its error estimate and step
 * control, so that results of code built on it can be reproduced; {@link odeint} has dense output and other methods.
 * @returns y(t1), and how often f was called.
 * @throws RangeError when a step underflows.
 */
export async function solveIvp(
  f: OdeFunction,
  [t0, t1]: readonly [number, number],
  y0: Float64Array,
  { rtol = 1e-3, atol = 1e-6, onStep }: SolveIvpOptions = {},
): Promise<{ y: Float64Array; evaluations: number }> {
  const direction = Math.sign(t1 - t0);
  if (direction === 0) return { y: y0, evaluations: 0 };
  const tolerances = { rtol: Math.max(rtol, 100 * Number.EPSILON), atol, norm: rmsNorm };
  let evaluations = 0;
  const counted: OdeFunction = (t, y) => {
    evaluations++;
    return f(t, y);
  };
  let [t, y] = [t0, y0];
  let slope = await counted(t, y);
  let size = await initialStep(counted, t, y, slope, { ...tolerances, order: 4, direction, limit: Math.abs(t1 - t0) });
  let rejected = false;
  while (direction * (t1 - t) > 0) {
    const smallest = 10 * Number.EPSILON * Math.abs(t || Number.MIN_VALUE);
    if (!rejected) size = Math.max(size, smallest);
    if (!(size >= smallest))
      throw new RangeError(`solveIvp: step ${size} at t = ${t} is too small: the problem may be stiff`);
    const end = direction * (t + direction * size - t1) > 0 ? t1 : t + direction * size;
    const dt = end - t;
    const slopes = await slopesOf(counted, y, slope, t, dt, end, rk45);
    const next = combined(y, slopes, rk45.solution, dt);
    const ratio = errorRatio(y, next, slopes, dt, rk45, tolerances);
    const accepted = ratio < 1;
    onStep?.({ t, dt, accepted });
    const best = 0.9 * ratio ** (-1 / 5);
    size =
      Math.abs(dt) * (accepted ? Math.min(best, rejected ? 1 : 10) : Number.isNaN(best) ? 0.2 : Math.max(best, 0.2));
    rejected = !accepted;
    if (accepted) [t, y, slope] = [end, next, slopes[slopes.length - 1]];
  }
  return { y, evaluations };
}
