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
import { gradient, noise, sum, x, x0 } from './linear.js';
import { preserved, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkTimesteps, spacedTimesteps } from './spacing.js';

const f = Math.fround;

/**
 * Ancestral sampling of Ho et al. 2020, also over fewer steps than were trained, with the fixed variances of the
 * paper and the learned ones of Nichol and Dhariwal 2021. Follows diffusers' DDPMScheduler.
 */
export const ddpm = defineSampler({
  className: 'DDPMScheduler',
  config: {
    ...scheduleFields,
    varianceType: z
      .enum(['fixed_small', 'fixed_small_log', 'fixed_large', 'fixed_large_log', 'learned', 'learned_range'])
      .default('fixed_small'),
    ...clipFields(true),
    predictionType: predictionField('epsilon', 'sample', 'v_prediction'),
    ...thresholdFields,
    ...spacingFields('leading'),
    ...zeroSnrField,
  },
  options: { steps: stepsField.optional(), timesteps: z.array(z.number().int()).optional(), start: startField },

  create(config) {
    const { alphasCumprod } = noiseSchedule(config);
    const predictionType = predictionTypeOf(config.predictionType);
    const learned = config.varianceType === 'learned' || config.varianceType === 'learned_range';

    const betasOf = (t: number, previous: number | undefined) => {
      const alphaBar = alphasCumprod[t];
      const alphaBarPrevious = previous === undefined ? 1 : alphasCumprod[previous];
      const alpha = f(alphaBar / alphaBarPrevious);
      const beta = f(1 - alpha);
      const posteriorVariance = Math.max(((1 - alphaBarPrevious) / (1 - alphaBar)) * beta, 1e-20);
      return { alphaBar, alphaBarPrevious, alpha, beta, posteriorVariance };
    };
    const call = (t: number, previous: number | undefined, later: number | undefined): SamplerCall => {
      const { alphaBar, alphaBarPrevious, alpha, beta, posteriorVariance } = betasOf(t, previous);
      const marginal = preserved(alphaBar);
      // The posterior q(x_{t-1} | x_t, x_0), equations 6 and 7.
      const mean = sum(
        [(Math.sqrt(alphaBarPrevious) * beta) / (1 - alphaBar), x0],
        [(Math.sqrt(alpha) * (1 - alphaBarPrevious)) / (1 - alphaBar), x],
      );
      const large = config.varianceType.startsWith('fixed_large');
      // There is no noise at t = 0. Guidance of the mean still has a variance there: that of the step before, as in
      // guided-diffusion.
      const least = t === 0 && later !== undefined ? betasOf(later, t).posteriorVariance : posteriorVariance;
      const variance = learned ? 1 : large ? (t === 0 ? least : beta) : posteriorVariance;
      const [minLogStd, maxLogStd] = [0.5 * Math.log(least), 0.5 * Math.log(beta)];
      return {
        timestep: t,
        inputScale: 1,
        ...marginal,
        x0: x0Form(predictionType, marginal),
        next: { x: sum([1, mean], [t === 0 ? 0 : Math.sqrt(variance), noise], [variance, gradient]) },
        // The network's v in [-1, 1] interpolates between the two bounds.
        logStd: { base: (maxLogStd + minLogStd) / 2, slope: (maxLogStd - minLogStd) / 2 },
      };
    };

    return {
      predictionType,
      marginal: (t) => preserved(alphasCumprod[t]),
      plan({ steps = 1000, timesteps, start }) {
        const times = timesteps ?? spacedTimesteps(config, steps);
        checkTimesteps('DDPMScheduler', alphasCumprod.length, times);
        if (times.some((t, i) => t <= times[i + 1]))
          throw new RangeError(`DDPMScheduler: timesteps must descend, got ${times.join(', ')}`);
        return makePlan({
          name: 'DDPMScheduler',
          calls: times.map((t, i) => call(t, times[i + 1], times[i - 1])),
          start,
          clipping: clippingOf(config),
          learnedVariance: learned ? (config.varianceType as 'learned' | 'learned_range') : 'none',
        });
      },
    };
  },
});
