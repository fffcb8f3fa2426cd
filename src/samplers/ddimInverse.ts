import { z } from 'zod';
import { noiseSchedule } from '../diffusion/index.js';
import { clipFields, clippingOf, predictionField, predictionTypeOf, scheduleFields, zeroSnrField } from './config.js';
import { sum, x0 } from './linear.js';
import { epsilonForm, preserved, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkTimesteps, spacedTimesteps } from './spacing.js';

const name = 'DDIMInverseScheduler';

/**
 * DDIM run backwards (Mokady et al. 2023): from an image to the noise that leads to it, one step of T / steps at a
 * time. Follows diffusers' DDIMInverseScheduler, which tells the denoiser the time it goes to.
 */
export const ddimInverse = defineSampler({
  className: name,
  config: {
    ...scheduleFields,
    ...clipFields(true),
    setAlphaToOne: z.boolean().default(true),
    predictionType: predictionField('epsilon', 'sample', 'v_prediction'),
    timestepSpacing: z.enum(['leading', 'trailing']).default('leading'),
    stepsOffset: z.number().int().min(0).default(0),
    ...zeroSnrField,
  },
  options: { steps: stepsField.default(50), start: startField },

  create(config) {
    const { alphasCumprod } = noiseSchedule(config);
    const predictionType = predictionTypeOf(config.predictionType);
    const initialAlphaBar = config.setAlphaToOne ? 1 : alphasCumprod[0];

    const call = (t: number, stride: number): SamplerCall => {
      const from = Math.min(t - stride, alphasCumprod.length - 1);
      const marginal = preserved(from >= 0 ? alphasCumprod[from] : initialAlphaBar);
      const goal = preserved(alphasCumprod[t]);
      return {
        timestep: t,
        inputScale: 1,
        ...marginal,
        x0: x0Form(predictionType, marginal),
        next: { x: sum([goal.alpha, x0], [goal.sigma, epsilonForm(predictionType, marginal)]) },
      };
    };

    return {
      predictionType,
      marginal: (t) => preserved(alphasCumprod[t]),
      plan({ steps, start }) {
        const times = spacedTimesteps(config, steps).reverse();
        checkTimesteps(name, alphasCumprod.length, times);
        const stride = Math.floor(alphasCumprod.length / steps);
        return makePlan({ name, calls: times.map((t) => call(t, stride)), start, clipping: clippingOf(config) });
      },
    };
  },
});
