export const scheduleNames = [
  'constant',
  'constant_with_warmup',
  'piecewise_constant',
  'linear',
  'cosine',
  'cosine_with_restarts',
  'polynomial',
] as const;
export type ScheduleName = (typeof scheduleNames)[number];

export interface ScheduleOptions {
  /** Steps over which the multiplier first rises linearly from 0 to 1; default 0. */
  readonly warmupSteps?: number;
  /** Steps of the whole training, warmup included; needed by linear, cosine, cosine_with_restarts and polynomial. */
  readonly totalSteps?: number;
  /** Periods of the cosine (default 0.5: once down), or number of restarts (default 1). */
  readonly cycles?: number;
  /** Exponent of polynomial; default 1. */
  readonly power?: number;
  /** The learning rate that is multiplied; needed by polynomial, which ends at a rate, not at a fraction. */
  readonly learningRate?: number;
  /** Where polynomial ends; default 1e-7. */
  readonly endLearningRate?: number;
  /** For piecewise_constant: `'1:10,0.1:20,0.005'` is 1 before step 10, 0.1 before step 20, 0.005 from there on. */
  readonly stepRules?: string;
}

/** The factor on the learning rate at a step, counted from 0: the number of optimiser steps already done. */
export type Schedule = (step: number) => number;

/**
 * The learning-rate schedules of diffusers' `get_scheduler`, under its names.
 * @throws RangeError for an unknown name, or an option that is missing or out of range.
 */
export function schedule(name: ScheduleName, options: ScheduleOptions = {}): Schedule {
  const { warmupSteps = 0, cycles, power = 1, endLearningRate = 1e-7 } = options;
  atLeast(name, 'warmupSteps', warmupSteps, 0);
  const required = (option: 'totalSteps' | 'learningRate'): number => atLeast(name, option, options[option], 0);
  const warmed = (after: Schedule): Schedule => {
    return (step) => (step < warmupSteps ? step / warmupSteps : after(step));
  };
  /** `decay` gets the shares of the steps after warmup that are done, 0 to 1 and more when training goes on, and left. */
  const decaying = (decay: (done: number, left: number) => number): Schedule => {
    const total = required('totalSteps');
    const span = Math.max(1, total - warmupSteps);
    // Not 1 - done: nothing is left after a warmup as long as the training.
    return warmed((step) => decay((step - warmupSteps) / span, Math.max(0, (total - step) / span)));
  };
  switch (name) {
    case 'constant':
      return () => 1;
    case 'constant_with_warmup':
      return warmed(() => 1);
    case 'piecewise_constant':
      return piecewise(options.stepRules);
    case 'linear':
      return decaying((_, left) => left);
    case 'cosine': // not held at its end: diffusers lets the wave run on
      return decaying((done) => 0.5 * (1 + Math.cos(2 * Math.PI * (cycles ?? 0.5) * done)));
    case 'cosine_with_restarts':
      return decaying((done) => (done >= 1 ? 0 : 0.5 * (1 + Math.cos(Math.PI * (((cycles ?? 1) * done) % 1)))));
    case 'polynomial': {
      const end = endLearningRate / required('learningRate');
      if (!(end < 1))
        throw new RangeError(`schedule polynomial: endLearningRate ${endLearningRate}, expected below learningRate`);
      return decaying((_, left) => (1 - end) * left ** power + end);
    }
    default:
      throw new RangeError(`schedule: '${name}', expected one of ${scheduleNames.join(', ')}`);
  }
}

function atLeast(name: string, option: string, value: number | undefined, least: number): number {
  if (value !== undefined && value >= least) return value;
  throw new RangeError(`schedule ${name}: ${option} ${value}, expected a number of at least ${least}`);
}

function piecewise(rules = ''): Schedule {
  const parts = rules.split(',').map((rule) => rule.split(':').map(Number));
  const last = parts.pop() as number[];
  const malformed = parts.some((rule) => rule.length !== 2 || !rule.every(Number.isFinite));
  if (rules === '' || malformed || last.length !== 1 || !Number.isFinite(last[0]))
    throw new RangeError(`schedule piecewise_constant: stepRules '${rules}', expected like '1:10,0.1:20,0.005'`);
  const untilStep = parts.sort(([, a], [, b]) => a - b);
  return (step) => untilStep.find(([, until]) => step < until)?.[0] ?? last[0];
}
