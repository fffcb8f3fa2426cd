import { ddim, ddpm, flowMatchEuler } from '../samplers/index.js';
import type { NoiseSettings } from './session.js';

const names = { epsilon: 'epsilon', x0: 'sample', v: 'v_prediction' } as const;

/** The scheduler_config.json that goes with a run: the noise it was trained on and what it predicts. */
export function samplerConfigOf(config: NoiseSettings & { readonly vae?: string }): Record<string, unknown> {
  if (config.predict === 'flow') return flowMatchEuler().toConfig();
  const common = {
    numTrainTimesteps: config.trainTimesteps,
    betaSchedule: config.betaSchedule,
    predictionType: names[config.predict],
    rescaleBetasZeroSnr: config.zeroTerminalSnr,
    // Steps that begin at the last timesteps: with few steps the others would start below full noise.
    timestepSpacing: 'trailing',
    ...(config.vae !== undefined && { clipSample: false }), // latents are not within -1..1
  } as const;
  return config.learnVariance ? ddpm({ ...common, varianceType: 'learned_range' }).toConfig() : ddim(common).toConfig();
}
