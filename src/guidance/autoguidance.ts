import type { Denoiser } from '../models/index.js';
import type { Tensor } from '../tensor/index.js';
import { contrast } from './contrast.js';
import type { Branch, Condition, GuidanceOptions, Guider, Schedule } from './guider.js';
import { type SkipOptions, skipBranch } from './skipLayer.js';

export interface AutoguidanceOptions extends GuidanceOptions, SkipOptions {
  /** A smaller or less trained model of the same pictures; without one, the model itself with layers skipped or dropped. */
  readonly weaker?: Denoiser;
  /** What the weaker model is told; default 'positive', as in the paper. diffusers tells it the negative condition. */
  readonly condition?: string;
}

/**
 * Autoguidance (Karras et al. 2024): away from a bad version of the model itself, D₀ + s (D₁ - D₀) with D₀ the weaker
 * one; 1 is off. It needs no unconditional prediction.
 * @throws RangeError for options that make no sense; for layers that a model lacks when it is used.
 */
export function autoguidance(scale: Schedule, options: AutoguidanceOptions = {}): Guider {
  const { weaker, condition = 'positive' } = options;
  if (weaker && (options.layers !== undefined || options.skip || options.dropout))
    throw new RangeError('autoguidance: expected a weaker model or layers to skip, got both');
  return contrast(scale, options, {
    other: weaker ? weakerBranch(weaker, condition) : skipBranch(options, condition),
  });
}

function weakerBranch(model: Denoiser, condition: string): Branch {
  return {
    name: `weaker model of ${condition}`,
    condition,
    predict(x: Tensor, timestep: Tensor, { labels }: Condition) {
      if (x.shape[1] !== model.inChannels)
        throw new RangeError(`autoguidance: the weaker model takes ${model.inChannels} channels, got ${x.shape[1]}`);
      return model.forward(x, timestep, model.nullClass === undefined ? undefined : (labels as Tensor));
    },
  };
}
