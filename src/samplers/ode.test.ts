import { describe, expect, it } from 'vitest';
import { type OdeMethod, type OdeStep, odeint, odeMethods, partsNorm, solveIvp } from './ode.js';
import { odeintAdjoint } from './odeAdjoint.js';

/** A turning and shrinking point: y(t) = exp(-t / 2) (cos t, sin t). */
const spiral = (_: number, [a, b]: Float64Array): Float64Array => Float64Array.of(-a / 2 - b, a - b / 2);
const exact = (t: number): number[] => [Math.exp(-t / 2) * Math.cos(t), Math.exp(-t / 2) * Math.sin(t)];
const start = Float64Array.of(1, 0);
const distance = (y: Float64Array, t: number): number => Math.hypot(...exact(t).map((x, i) => x - y[i]));

const orders: Readonly<Record<string, number>> = { euler: 1, midpoint: 2, heun2: 2, heun3: 3, rk4: 4 };

describe('odeint', () => {
  it.each(Object.entries(orders))('%s converges with order %i', async (method, order) => {
    const error = async (stepSize: number) => {
      const [, y] = await odeint(spiral, start, [0, 1], { method: method as OdeMethod, stepSize });
      return distance(y, 1);
    };
    const measured = Math.log2((await error(1 / 16)) / (await error(1 / 32)));
    expect(Math.abs(measured - order)).toBeLessThan(0.15);
  });

  it.each(odeMethods.filter((method) => !(method in orders)))(
    '%s keeps its tolerance, also between steps',
    async (method) => {
      const times = [0, 0.11, 0.5, 1.7, 3];
      const states = await odeint(spiral, start, times, { method, rtol: 1e-6, atol: 1e-8 });
      expect(states).toHaveLength(times.length);
      // Between two steps torchdiffeq's polynomials are rougher than the steps themselves.
      for (const [i, t] of times.entries()) expect(distance(states[i], t)).toBeLessThan(2e-4);
    },
  );

  it('goes back to where it came from', async () => {
    const [, end] = await odeint(spiral, start, [0, 2]);
    const [, back] = await odeint(spiral, end, [2, 0]);
    expect(Math.hypot(back[0] - 1, back[1])).toBeLessThan(1e-6);
  });

  it('reads fixed steps along lines or cubics', async () => {
    const read = async (interpolation: 'linear' | 'cubic') =>
      (await odeint(spiral, start, [0, 0.25, 1], { method: 'rk4', stepSize: 0.5, interpolation }))[1];
    expect(distance(await read('linear'), 0.25)).toBeGreaterThan(0.02);
    expect(distance(await read('cubic'), 0.25)).toBeLessThan(1e-3);
  });

  it('tells every attempt, within the bounds that were set', async () => {
    const steps: OdeStep[] = [];
    const sudden = (t: number) => Float64Array.of(1000 * Math.exp(-(((t - 1) / 0.01) ** 2)));
    await odeint(sudden, Float64Array.of(0), [0, 2], {
      rtol: 1e-4,
      atol: 1e-4,
      maxStep: 0.2,
      onStep: (x) => steps.push(x),
    });
    expect(steps.some((step) => !step.accepted)).toBe(true);
    expect(Math.max(...steps.map((step) => step.dt))).toBeLessThanOrEqual(0.2);
  });

  it('weighs the parts of a state one by one', () => {
    expect(partsNorm([3, 1])(Float64Array.of(0, 0, 0, 2))).toBe(2);
  });

  it('refuses what it cannot solve', async () => {
    await expect(odeint(spiral, start, [0, 1, 0.5])).rejects.toThrow('rising or strictly falling times, got 0, 1, 0.5');
    await expect(odeint(spiral, start, [0, 1], { method: 'rk5' as OdeMethod })).rejects.toThrow("got 'rk5'");
    await expect(odeint(spiral, start, [0, 1], { method: 'rk4', stepSize: -1 })).rejects.toThrow('above 0, got -1');
    await expect(odeint(spiral, start, [0, 9], { maxSteps: 2 })).rejects.toThrow('more than 2 steps');
    const explodes = (_: number, [y]: Float64Array) => Float64Array.of(y * y);
    await expect(odeint(explodes, Float64Array.of(1), [0, 2])).rejects.toThrow(/too small|not finite/);
  });
});

describe('solveIvp', () => {
  it('ends exactly at the end, in either direction', async () => {
    const { y, evaluations } = await solveIvp(spiral, [0, 2], start, { rtol: 1e-8, atol: 1e-10 });
    expect(distance(y, 2)).toBeLessThan(1e-7);
    expect(evaluations % 6).toBe(2);
    const back = await solveIvp(spiral, [2, 0], y, { rtol: 1e-8, atol: 1e-10 });
    expect(distance(back.y, 0)).toBeLessThan(1e-7);
  });
});

describe('odeintAdjoint', () => {
  it('is the derivative of what the solver returns', async () => {
    // dy/dt = θ0 y + θ1 t, a loss of the states at both later times.
    const parameters = [-0.7, 0.4];
    const times = [0, 0.5, 1.2];
    const weights = [0, 0.3, 2];
    const slope =
      (theta: readonly number[]) =>
      (t: number, [y]: Float64Array) =>
        Float64Array.of(theta[0] * y + theta[1] * t);
    const solve = (theta: readonly number[], y0: number) => odeint(slope(theta), Float64Array.of(y0), times);
    const loss = async (theta: readonly number[], y0: number) =>
      (await solve(theta, y0)).reduce((sum, [y], i) => sum + weights[i] * y, 0);
    const { state, parameters: gradient } = await odeintAdjoint(
      (t, y, a) => ({
        slope: slope(parameters)(t, y),
        state: Float64Array.of(a[0] * parameters[0]),
        parameters: Float64Array.of(a[0] * y[0], a[0] * t),
      }),
      await solve(parameters, 1),
      times,
      weights.map((w) => Float64Array.of(w)),
      [1, 1],
    );
    const h = 1e-4;
    const difference = async (at: (h: number) => Promise<number>) => ((await at(h)) - (await at(-h))) / (2 * h);
    expect(state[0]).toBeCloseTo(await difference((d) => loss(parameters, 1 + d)), 6);
    expect(gradient[0]).toBeCloseTo(await difference((d) => loss([parameters[0] + d, parameters[1]], 1)), 6);
    expect(gradient[1]).toBeCloseTo(await difference((d) => loss([parameters[0], parameters[1] + d], 1)), 6);
  });
});
