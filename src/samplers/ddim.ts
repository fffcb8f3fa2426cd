import { z } from 'zod';
import { noiseSchedule } from '../diffusion/index.js';
import {
  clipFields,
  clippingOf,
  predictionField,
  predictionTypeOf,
  scheduleFields,
  spacingFields,
  thresholdFields,
  zeroSnrField,
} from './config.js';
import { noise, sum, x, x0 } from './linear.js';
import { epsilonForm, preserved, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkTimesteps, spacedTimesteps } from './spacing.js';

const f = Math.fround;

/** Song et al. 2021; eta 0 is deterministic, 1 as noisy as DDPM. Follows diffusers' DDIMScheduler. */
export const ddim = defineSampler({
  className: 'DDIMScheduler',
  config: {
    ...scheduleFields,
    ...clipFields(true),
    setAlphaToOne: z.boolean().default(true),
    predictionType: predictionField('epsilon', 'sample', 'v_prediction'),
    ...thresholdFields,
    ...spacingFields('leading'),
    ...zeroSnrField,
  },
  options: {
    steps: stepsField.default(50),
    start: startField,
    eta: z.number().min(0).default(0),
    /** Derive the noise direction again from the clipped x0, as GLIDE does. */
    useClippedModelOutput: z.boolean().default(false),
  },

  create(config) {
    const { alphasCumprod } = noiseSchedule(config);
    const predictionType = predictionTypeOf(config.predictionType);
    const finalAlphaBar = config.setAlphaToOne ? 1 : alphasCumprod[0];

    const call = (t: number, stride: number, eta: number, reclip: boolean): SamplerCall => {
      const alphaBar = alphasCumprod[t];
      const previous = t - stride; // not the next of the list: they differ for linspace
      const alphaBarPrevious = previous >= 0 ? alphasCumprod[previous] : finalAlphaBar;
      const marginal = preserved(alphaBar);
      const { alpha, sigma } = marginal;
      // Rounded step by step as in float32: at eta 1 what is left for the direction is all cancellation.
      const [beta, betaPrevious] = [f(1 - alphaBar), f(1 - alphaBarPrevious)];
      const variance = f(f(betaPrevious / beta) * f(1 - f(alphaBar / alphaBarPrevious)));
      const std = f(eta * f(Math.sqrt(variance)));
      const epsilon = reclip ? sum([1 / sigma, x], [-alpha / sigma, x0]) : epsilonForm(predictionType, marginal);
      const direction = Math.sqrt(Math.max(f(betaPrevious - f(std ** 2)), 0));
      return {
        timestep: t,
        inputScale: 1,
        ...marginal,
        x0: x0Form(predictionType, marginal),
        // Equation 12.
        next: { x: sum([Math.sqrt(alphaBarPrevious), x0], [direction, epsilon], [std, noise]) },
      };
    };

    return {
      predictionType,
      marginal: (t) => preserved(alphasCumprod[t]),
      plan({ steps, start, eta, useClippedModelOutput }) {
        const times = spacedTimesteps(config, steps);
        checkTimesteps('DDIMScheduler', alphasCumprod.length, times);
        const stride = Math.floor(alphasCumprod.length / steps);
        return makePlan({
          name: 'DDIMScheduler',
          calls: times.map((t) => call(t, stride, eta, useClippedModelOutput)),
          start,
          clipping: clippingOf(config),
        });
      },
    };
  },
});
