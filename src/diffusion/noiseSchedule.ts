import { linspaceFloat32 } from './numeric.js';

export const betaSchedules = ['linear', 'scaled_linear', 'squaredcos_cap_v2', 'sigmoid', 'laplace'] as const;
export type BetaSchedule = (typeof betaSchedules)[number];

export interface NoiseScheduleConfig {
  /** T, the number of noise levels the model is trained on. */
  readonly numTrainTimesteps: number;
  readonly betaSchedule: BetaSchedule;
  /** First and last beta of the linear, scaled_linear and sigmoid schedules. */
  readonly betaStart: number;
  readonly betaEnd: number;
  /** Given betas, which replace the schedule (and T). */
  readonly trainedBetas?: readonly number[] | null;
  /** Shift and scale so that the last step keeps no signal (Lin et al. 2023, algorithm 1). */
  readonly rescaleBetasZeroSnr?: boolean;
}

/**
 * A discrete variance preserving noise schedule: x_t = sqrt(alphasCumprod[t]) x0 + sqrt(1 - alphasCumprod[t]) noise.
 * Both tables have length T and hold the float32 values that diffusers computes.
 */
export interface NoiseSchedule {
  readonly betas: Float32Array<ArrayBuffer>;
  readonly alphasCumprod: Float32Array<ArrayBuffer>;
}

/** The schedule of a config in the names and defaults of diffusers (linear, 1e-4 to 0.02, T = 1000). */
export function noiseSchedule(config: Partial<NoiseScheduleConfig> = {}): NoiseSchedule {
  const {
    numTrainTimesteps = 1000,
    betaSchedule = 'linear',
    betaStart = 1e-4,
    betaEnd = 0.02,
    trainedBetas,
    rescaleBetasZeroSnr = false,
  } = config;
  const trained = trainedBetas
    ? Float32Array.from(trainedBetas)
    : makeBetas(betaSchedule, betaStart, betaEnd, numTrainTimesteps);
  const wrong = trained.findIndex((beta) => !(beta >= 0 && beta < 1));
  if (wrong >= 0) throw new RangeError(`noise schedule: beta ${wrong} must lie in [0, 1), got ${trained[wrong]}`);
  const betas = rescaleBetasZeroSnr ? rescaleZeroTerminalSnr(trained) : trained;
  return { betas, alphasCumprod: cumulativeAlphas(betas) };
}

function makeBetas(schedule: BetaSchedule, start: number, end: number, count: number): Float32Array<ArrayBuffer> {
  switch (schedule) {
    case 'linear':
      return linspaceFloat32(start, end, count);
    case 'scaled_linear': // latent diffusion's: linear in sqrt(beta)
      return linspaceFloat32(Math.sqrt(start), Math.sqrt(end), count).map((root) => root * root);
    case 'sigmoid': // GeoDiff's
      return linspaceFloat32(-6, 6, count).map(
        (x) => Math.fround(Math.fround(1 / (1 + Math.exp(-x))) * Math.fround(end - start)) + Math.fround(start),
      );
    case 'squaredcos_cap_v2':
      return betasForAlphaBar(cosineAlphaBar, count);
    case 'laplace':
      return betasForAlphaBar(laplaceAlphaBar, count);
  }
}

/** Nichol and Dhariwal 2021, equation 17. */
const cosineAlphaBar = (t: number): number => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2;

/** Hang et al. 2024: log SNR drawn from a Laplace distribution. */
function laplaceAlphaBar(t: number): number {
  const logSnr = -0.5 * Math.sign(0.5 - t || 1) * Math.log(1 - 2 * Math.abs(0.5 - t) + 1e-6);
  const snr = Math.exp(logSnr);
  return Math.sqrt(snr / (1 + snr));
}

/** Discretises a continuous alphaBar(t), t in [0, 1]; no beta exceeds 0.999. */
const betasForAlphaBar = (alphaBar: (t: number) => number, count: number): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length: count }, (_, i) => Math.min(1 - alphaBar((i + 1) / count) / alphaBar(i / count), 0.999));

/** Products of 1 - beta, accumulated in float64 and stored in float32, as torch.cumprod does. */
function cumulativeAlphas(betas: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  let product = 1;
  return betas.map((beta) => {
    product *= Math.fround(1 - beta);
    return product;
  });
}

/** Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed", algorithm 1. */
function rescaleZeroTerminalSnr(betas: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const f = Math.fround;
  const roots = cumulativeAlphas(betas).map(Math.sqrt);
  const first = roots[0];
  const last = roots[roots.length - 1];
  const scale = f(first / f(first - last));
  const alphaBar = roots.map((root) => f(f(root - last) * scale) ** 2);
  return alphaBar.map((value, i) => 1 - f(i === 0 ? value : value / alphaBar[i - 1]));
}
