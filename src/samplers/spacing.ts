import { linspace, roundHalfToEven } from '../diffusion/index.js';
import type { Spacing } from './config.js';

/** How timesteps are picked out of the T of training: Table 2 of Lin et al. 2023. */
export interface SpacingConfig {
  readonly numTrainTimesteps: number;
  readonly timestepSpacing: Spacing;
  readonly stepsOffset: number;
}

/** `steps` descending integer timesteps, as DDPM and DDIM take them. linspace with `round` false keeps fractions. */
export function spacedTimesteps(config: SpacingConfig, steps: number, round = true): number[] {
  const { numTrainTimesteps: total, timestepSpacing, stepsOffset } = config;
  switch (timestepSpacing) {
    case 'linspace': {
      const even = Array.from(linspace(0, total - 1, steps)).reverse();
      return even.map(round ? roundHalfToEven : Math.fround);
    }
    case 'leading':
      return ascending(steps)
        .map((i) => i * Math.floor(total / steps) + stepsOffset)
        .reverse();
    case 'trailing':
      return trailing(total, total / steps, steps);
  }
}

/**
 * The same for the DPM-Solver family, which leaves the last of steps + 1 points to the end of the trajectory.
 * @param last number of training timesteps in use, counted from 0: fewer than T where log-SNR is clipped
 */
export function multistepTimesteps(config: SpacingConfig, steps: number, last = config.numTrainTimesteps): number[] {
  const { numTrainTimesteps: total, timestepSpacing, stepsOffset } = config;
  switch (timestepSpacing) {
    case 'linspace':
      return Array.from(linspace(0, last - 1, steps + 1), roundHalfToEven)
        .reverse()
        .slice(0, -1);
    case 'leading':
      return ascending(steps)
        .map((i) => (i + 1) * Math.floor(last / (steps + 1)) + stepsOffset)
        .reverse();
    case 'trailing': {
      const count = last === total ? steps : Math.ceil(last / (total / steps));
      return trailing(last, total / steps, count);
    }
  }
}

/** Halves are common here, and rounded as numpy's arange leaves them: it adds multiples of its first difference. */
function trailing(from: number, stride: number, count: number): number[] {
  const difference = from - stride - from;
  return ascending(count).map((i) => roundHalfToEven(from + i * difference) - 1);
}

const ascending = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** @throws RangeError when there are more steps than timesteps were trained. */
export function checkCount(name: string, total: number, steps: number): void {
  if (steps > total) throw new RangeError(`${name}: ${steps} steps, but the model knows only ${total} timesteps`);
}

/** @throws RangeError for more timesteps than were trained, or one outside 0..T-1. */
export function checkTimesteps(name: string, total: number, timesteps: readonly number[]): void {
  checkCount(name, total, timesteps.length);
  const outside = timesteps.find((t) => !(t >= 0 && t < total));
  if (outside !== undefined) throw new RangeError(`${name}: timestep ${outside} out of range 0..${total - 1}`);
}
