import { z } from 'zod';
import { noiseSchedule } from '../diffusion/index.js';
import { predictionTypeOf } from './config.js';
import { consistencyTimesteps, distilledTimesteps } from './consistencySteps.js';
import { distilledFields, distilledOptions } from './lcm.js';
import { noise, sum, x0 } from './linear.js';
import { epsilonForm, preserved, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler } from './sampler.js';

const name = 'TCDScheduler';

/**
 * Trajectory consistency distillation (Zheng et al. 2024): a step to a point s between here and the next time, then
 * noise up to that time; eta 0 is deterministic, 1 denoises whole. Follows diffusers' TCDScheduler.
 */
export const tcd = defineSampler({
  className: name,
  config: distilledFields,
  options: { ...distilledOptions, eta: z.number().min(0).max(1).default(0.3) },

  create(config) {
    const { alphasCumprod } = noiseSchedule(config);
    const predictionType = predictionTypeOf(config.predictionType);
    const total = alphasCumprod.length;

    const call = (t: number, next: number | undefined, eta: number): SamplerCall => {
      const marginal = preserved(alphasCumprod[t]);
      const s = Math.floor(Math.fround(Math.fround(1 - eta) * (next ?? 0))); // float32: 0.7 times 330 reaches 231
      const [atS, atNext] = [alphasCumprod[s], alphasCumprod[next ?? 0]];
      const { alpha, sigma } = preserved(atS);
      const between = sum([alpha, x0], [sigma, epsilonForm(predictionType, marginal)]);
      const keep = eta > 0 && next !== undefined ? atNext / atS : 1;
      return {
        timestep: t,
        inputScale: 1,
        ...marginal,
        x0: x0Form(predictionType, marginal),
        next: { x: sum([Math.sqrt(keep), between], [Math.sqrt(1 - keep), noise]) },
      };
    };

    return {
      predictionType,
      marginal: (t) => preserved(alphasCumprod[t]),
      plan({ steps = 4, timesteps, start, strength, eta, originalInferenceSteps: given }) {
        const originalSteps = given ?? config.originalInferenceSteps;
        // With a number of steps of the caller's own, any trained timestep will do.
        const original = given
          ? Array.from({ length: Math.floor(total * strength) }, (_, i) => i)
          : distilledTimesteps(total, originalSteps, strength);
        const times = consistencyTimesteps({ name, total, originalSteps, strength, steps, timesteps, original });
        return makePlan({ name, calls: times.map((t, i) => call(t, times[i + 1], eta)), start });
      },
    };
  },
});
