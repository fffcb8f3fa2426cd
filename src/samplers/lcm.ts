import { z } from 'zod';
import { noiseSchedule } from '../diffusion/index.js';
import {
  clipFields,
  clippingOf,
  latentBetaFields,
  predictionField,
  predictionTypeOf,
  scheduleFields,
  spacingFields,
  thresholdFields,
  zeroSnrField,
} from './config.js';
import { consistencyTimesteps, distilledTimesteps } from './consistencySteps.js';
import { noise, sum, x, x0 } from './linear.js';
import { preserved, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';

const name = 'LCMScheduler';

/** Standard deviation of the data that the boundary condition assumes. */
const sigmaData = 0.5;

/** Config fields of the models distilled to few steps. */
export const distilledFields = {
  ...scheduleFields,
  ...latentBetaFields,
  betaSchedule: scheduleFields.betaSchedule.unwrap().default('scaled_linear'),
  originalInferenceSteps: z.number().int().positive().default(50),
  ...clipFields(false),
  setAlphaToOne: z.boolean().default(true),
  predictionType: predictionField('epsilon', 'sample', 'v_prediction'),
  ...thresholdFields,
  ...spacingFields('leading'),
  timestepScaling: z.number().positive().default(10),
  ...zeroSnrField,
};

export const distilledOptions = {
  steps: stepsField.optional(),
  timesteps: z.array(z.number().int()).min(1).optional(),
  start: startField,
  /** How many steps the distillation had, in place of the config's. */
  originalInferenceSteps: z.number().int().positive().optional(),
  strength: z.number().positive().max(1).default(1),
};

/** Latent consistency models: denoise whole, noise again (Luo et al. 2023). Follows diffusers' LCMScheduler. */
export const lcm = defineSampler({
  className: name,
  config: distilledFields,
  options: distilledOptions,

  create(config) {
    const { alphasCumprod } = noiseSchedule(config);
    const predictionType = predictionTypeOf(config.predictionType);
    const total = alphasCumprod.length;

    const call = (t: number, next: number | undefined): SamplerCall => {
      const marginal = preserved(alphasCumprod[t]);
      const scaled = t * config.timestepScaling;
      const skip = sigmaData ** 2 / (scaled ** 2 + sigmaData ** 2);
      const out = scaled / Math.sqrt(scaled ** 2 + sigmaData ** 2);
      const denoised = sum([out, x0], [skip, x]);
      const goal = next === undefined ? { alpha: 1, sigma: 0 } : preserved(alphasCumprod[next]);
      return {
        timestep: t,
        inputScale: 1,
        ...marginal,
        x0: x0Form(predictionType, marginal),
        next: { x: sum([goal.alpha, denoised], [goal.sigma, noise]) },
      };
    };

    return {
      predictionType,
      marginal: (t) => preserved(alphasCumprod[t]),
      plan({ steps = 4, timesteps, start, strength, originalInferenceSteps: given }) {
        const originalSteps = given ?? config.originalInferenceSteps;
        const original = distilledTimesteps(total, originalSteps, strength);
        const times = consistencyTimesteps({ name, total, originalSteps, strength, steps, timesteps, original });
        const calls = times.map((t, i) => call(t, times[i + 1]));
        return makePlan({ name, calls, start, clipping: clippingOf(config) });
      },
    };
  },
});
