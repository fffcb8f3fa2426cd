import { linspace } from '../diffusion/index.js';
import { betaQuantile } from './betaQuantile.js';
import { numpyLog } from './numpyLog.js';

/** A zero-SNR schedule ends at alphasCumprod 0 and so at an infinite sigma: 2^-24 (sigma 4096) takes its place. */
export const withFiniteSigmas = (alphasCumprod: Float32Array): Float32Array =>
  alphasCumprod.map((alpha) => (alpha === 0 ? 2 ** -24 : alpha));

/** Noise-to-signal ratio of every training timestep, ascending, in float32: sqrt((1 - alphasCumprod) / alphasCumprod). */
export const sigmasOf = (alphasCumprod: Float32Array): Float32Array =>
  alphasCumprod.map((alpha) => Math.sqrt(Math.fround(Math.fround(1 - alpha) / alpha)));

/** The table's value at a fractional index, linear in between and constant outside. */
export function interpolate(table: ArrayLike<number>, index: number): number {
  const low = Math.min(Math.max(Math.floor(index), 0), table.length - 1);
  const high = Math.min(low + 1, table.length - 1);
  return table[low] + (table[high] - table[low]) * Math.min(Math.max(index - low, 0), 1);
}

/**
 * The fractional timestep of a sigma: linear in log sigma between training timesteps, clamped at the ends.
 * Rounded to float32 where numpy is, because callers cut the result down to an integer.
 */
export function sigmaToTimestep(sigma: number, logSigmas: Float32Array): number {
  const f = Math.fround;
  const logSigma = f(Math.log(Math.max(sigma, 1e-10)));
  const below = logSigmas.findLastIndex((value) => value <= logSigma);
  const low = Math.min(Math.max(below, 0), logSigmas.length - 2);
  const ratio = f(f(logSigmas[low] - logSigma) / f(logSigmas[low] - logSigmas[low + 1]));
  const weight = Math.min(Math.max(ratio, 0), 1);
  return f(1 - weight) * low + weight * (low + 1);
}

export const logOf = (sigmas: Float32Array): Float32Array => sigmas.map(numpyLog);

/** Karras et al. 2022, equation 5. */
export const karrasSigmas = (max: number, min: number, steps: number, rho = 7): Float64Array =>
  linspace(0, 1, steps).map((ramp) => (max ** (1 / rho) + ramp * (min ** (1 / rho) - max ** (1 / rho))) ** rho);

/** Evenly spaced in log sigma. */
export const exponentialSigmas = (max: number, min: number, steps: number): Float64Array =>
  linspace(Math.log(max), Math.log(min), steps).map(Math.exp);

/** Lee et al. 2024, "Beta sampling is all you need": quantiles of Beta(0.6, 0.6). */
export const betaSigmas = (max: number, min: number, steps: number): Float64Array =>
  linspace(0, 1, steps).map((p) => min + betaQuantile(1 - p, 0.6, 0.6) * (max - min));

export interface SigmaSpacing {
  readonly useKarrasSigmas?: boolean | null;
  readonly useExponentialSigmas?: boolean | null;
  readonly useBetaSigmas?: boolean | null;
  /** Even in log sigma, as the exponential ones: Lu et al. 2022. */
  readonly useLuLambdas?: boolean;
  readonly useFlowSigmas?: boolean;
}

const spacingKeys = ['useKarrasSigmas', 'useExponentialSigmas', 'useBetaSigmas', 'useLuLambdas', 'useFlowSigmas'];

/** The config's replacement of evenly spaced sigmas between two bounds, or undefined when it asks for none. */
export function respacedSigmas(
  config: SigmaSpacing,
  max: number,
  min: number,
  steps: number,
): Float64Array | undefined {
  if (config.useKarrasSigmas) return karrasSigmas(max, min, steps);
  if (config.useExponentialSigmas || config.useLuLambdas) return exponentialSigmas(max, min, steps);
  if (config.useBetaSigmas) return betaSigmas(max, min, steps);
  return undefined;
}

/** @throws TypeError when a config asks for more than one way to choose the sigmas. */
export function checkSigmaSpacing(name: string, config: SigmaSpacing): void {
  const on = (Object.keys(config) as (keyof SigmaSpacing)[]).filter((key) => spacingKeys.includes(key) && config[key]);
  if (on.length > 1) throw new TypeError(`${name}: expected at most one choice of sigmas, got ${on.join(', ')}`);
}
