import { type Linear, noise, slot, sum, x } from './linear.js';

/** A noise level: x = alpha x0 + sigma noise, and lambda = log(alpha / sigma), half the log-SNR. */
export interface Level {
  readonly alpha: number;
  readonly sigma: number;
  readonly lambda: number;
}

export type DpmAlgorithm = 'dpmsolver' | 'dpmsolver++' | 'sde-dpmsolver' | 'sde-dpmsolver++';
export type DpmSolverType = 'midpoint' | 'heun';

/** One step from `s` to `t` is keep x - scale (sum of phi weights and differences of the model) + std noise. */
export function dpmWeights(algorithm: DpmAlgorithm, s: Level, t: Level) {
  const h = t.lambda - s.lambda;
  switch (algorithm) {
    case 'dpmsolver++':
      return { h, keep: t.sigma / s.sigma, scale: t.alpha, z: -h, std: 0 };
    case 'dpmsolver':
      return { h, keep: t.alpha / s.alpha, scale: t.sigma, z: h, std: 0 };
    case 'sde-dpmsolver++': {
      const std = t.sigma * Math.sqrt(-Math.expm1(-2 * h));
      return { h, keep: (t.sigma / s.sigma) * Math.exp(-h), scale: t.alpha, z: -2 * h, std };
    }
    case 'sde-dpmsolver':
      return { h, keep: t.alpha / s.alpha, scale: 2 * t.sigma, z: h, std: t.sigma * Math.sqrt(Math.expm1(2 * h)) };
  }
}

/** The weights of the model's first and second difference in a step of that z. */
export const firstWeight = (solverType: DpmSolverType, z: number): number =>
  solverType === 'heun' ? Math.expm1(z) / z - 1 : 0.5 * Math.expm1(z);

export const secondWeight = (algorithm: DpmAlgorithm, z: number): number =>
  // diffusers adds this half for the SDE, where the weight then does not vanish with the step
  (Math.expm1(z) - z) / z ** 2 + (algorithm === 'sde-dpmsolver++' ? 0.5 : -0.5);

export interface MultistepStep {
  readonly algorithm: DpmAlgorithm;
  readonly solverType: DpmSolverType;
  readonly order: number;
  /** Where the step goes, and where the model was asked: now, before, and before that. */
  readonly levels: readonly [t: Level, s0: Level, s1: Level, s2: Level];
  /** What the model says now (x0 or the noise); the slots m1 and m2 hold what it said before. */
  readonly m0: Linear;
}

/** DPM-Solver's multistep update: Lu et al. 2022b, algorithm 2 and its third-order relative. */
export function multistepUpdate({ algorithm, solverType, order, levels, m0 }: MultistepStep): Linear {
  const [t, s0, s1, s2] = levels;
  const { h, keep, scale, z, std } = dpmWeights(algorithm, s0, t);
  const differences: [number, Linear][] = [[Math.expm1(z), m0]];
  if (order > 1 && h !== 0) {
    const r0 = (s0.lambda - s1.lambda) / h;
    const D1 = sum([1 / r0, m0], [-1 / r0, slot('m1')]);
    if (order === 2) differences.push([firstWeight(solverType, z), D1]);
    else {
      const r1 = (s1.lambda - s2.lambda) / h;
      const earlier = sum([1 / r1, slot('m1')], [-1 / r1, slot('m2')]);
      const D2 = sum([1 / (r0 + r1), D1], [-1 / (r0 + r1), earlier]);
      differences.push([firstWeight('heun', z), sum([1, D1], [r0, D2])], [secondWeight(algorithm, z), D2]);
    }
  }
  return sum([keep, x], [-scale, sum(...differences)], [std, noise]);
}

/** The slots m1, m2 ... that a method of this order keeps: what the model said in earlier calls. */
export const modelHistory = (m0: Linear, count: number): Record<string, Linear> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`m${i + 1}`, i === 0 ? m0 : slot(`m${i}`)]));

export interface OrderRequest {
  readonly solverOrder: number;
  /** Calls since the run began, this one included. */
  readonly known: number;
  /** Calls left, this one included. */
  readonly left: number;
  /** Falls to order 2 and 1 at the end. */
  readonly lowerAtEnd: boolean;
  /** Takes the last step with order 1 in any case. */
  readonly firstOrderAtEnd: boolean;
}

/** The order of one step of a multistep method: limited by what is known yet and, at the end, for stability. */
export function multistepOrder({ solverOrder, known, left, lowerAtEnd, firstOrderAtEnd }: OrderRequest): number {
  const allowed = left === 1 && (firstOrderAtEnd || lowerAtEnd) ? 1 : left === 2 && lowerAtEnd ? 2 : solverOrder;
  return Math.min(solverOrder, known, allowed);
}
