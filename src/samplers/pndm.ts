import { z } from 'zod';
import { noiseSchedule } from '../diffusion/index.js';
import { predictionField, predictionTypeOf, scheduleFields, spacingFields } from './config.js';
import { type Linear, prediction, slot, sum, x } from './linear.js';
import { preserved, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { checkTimesteps, spacedTimesteps } from './spacing.js';

const name = 'PNDMScheduler';

/** Adams-Bashforth weights of the newest predictions, by how many there are. */
const multistep: readonly (readonly number[])[] = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
];

/**
 * Pseudo numerical methods on manifolds (Liu et al. 2022): a linear multistep method, warmed up by Runge-Kutta steps
 * or, with skipPrkSteps, by one step taken twice (N + 1 calls). Follows diffusers' PNDMScheduler.
 */
export const pndm = defineSampler({
  className: name,
  config: {
    ...scheduleFields,
    skipPrkSteps: z.boolean().default(false),
    setAlphaToOne: z.boolean().default(false),
    predictionType: predictionField('epsilon', 'v_prediction'),
    ...spacingFields('leading'),
  },
  options: { steps: stepsField.default(50), start: startField },

  create(config) {
    const { alphasCumprod } = noiseSchedule(config);
    const predictionType = predictionTypeOf(config.predictionType);
    const finalAlphaBar = config.setAlphaToOne ? 1 : alphasCumprod[0];

    /** Equation 9: from t to `previous` along what the model says, `said` being a mixture of predictions. */
    const transfer = (from: Linear, t: number, previous: number, said: Linear): Linear => {
      const alphaBar = alphasCumprod[t];
      const alphaBarPrevious = previous >= 0 ? alphasCumprod[previous] : finalAlphaBar;
      const { alpha, sigma } = preserved(alphaBar);
      const epsilon = predictionType === 'v' ? sum([alpha, said], [sigma, from]) : said;
      const denominator =
        alphaBar * Math.sqrt(1 - alphaBarPrevious) + Math.sqrt(alphaBar * (1 - alphaBar) * alphaBarPrevious);
      return sum(
        [Math.sqrt(alphaBarPrevious / alphaBar), from],
        [-(alphaBarPrevious - alphaBar) / denominator, epsilon],
      );
    };
    const call = (timestep: number, next: SamplerCall['next']): SamplerCall => {
      const marginal = preserved(alphasCumprod[timestep]);
      return { timestep, inputScale: 1, ...marginal, x0: x0Form(predictionType, marginal), next };
    };
    const remembered = { said1: prediction, said2: slot('said1'), said3: slot('said2') };
    const kept = { said1: slot('said1'), said2: slot('said2'), said3: slot('said3') };
    const past = [prediction, slot('said1'), slot('said2'), slot('said3')];
    const mixture = (count: number) => sum(...multistep[count - 1].map((weight, i) => [weight, past[i]] as const));

    /** One step of the multistep method with `count` predictions, the present one included. */
    const linearStep = (t: number, stride: number, count: number) =>
      call(t, { x: transfer(x, t, t - stride, mixture(count)), ...remembered });

    /** Four calls of a Runge-Kutta step from t to `next`; diffusers' middle lies `half` above `next`. */
    const rungeKutta = (t: number, next: number, half: number): SamplerCall[] => {
      const origin = slot('origin');
      const blend = (weight: number) => sum([1, slot('blend')], [weight, prediction]);
      return [
        call(t, { x: transfer(x, t, t - half, prediction), origin: x, blend: sum([1 / 6, prediction]), ...remembered }),
        call(next + half, { x: transfer(origin, t, next + half, prediction), origin, blend: blend(1 / 3), ...kept }),
        call(next + half, { x: transfer(origin, t, next, prediction), origin, blend: blend(1 / 3), ...kept }),
        call(next, { x: transfer(origin, t, next, blend(1 / 6)), ...kept }),
      ];
    };

    /** The first two calls stand at neighbouring times; the second takes the first step again with their mean. */
    const twice = (times: readonly number[], stride: number, start: number): SamplerCall[] => {
      const [first, second] = times;
      const opening = call(first, { x: transfer(x, first, first - stride, prediction), origin: x, ...remembered });
      if (second === undefined) return [opening];
      const mean = sum([0.5, prediction], [0.5, slot('said1')]);
      const again = transfer(slot('origin'), second + stride, second, mean);
      const repeated = start === 0 ? { x: again, ...kept } : { x, ...remembered };
      const known = (i: number) => Math.max(1, Math.min(i + 2, i + 3 - start, 4));
      return [opening, call(second, repeated), ...times.slice(1).map((t, i) => linearStep(t, stride, known(i)))];
    };

    const afterRungeKutta = (times: readonly number[], stride: number, start: number): SamplerCall[] => {
      if (times.length < 4)
        throw new RangeError(`${name}: Runge-Kutta steps need at least 4 steps, got ${times.length}`);
      if (start < 12 && start % 4 !== 0)
        throw new RangeError(`${name}: start ${start} lies inside a Runge-Kutta step; expected 0, 4, 8 or 12 and more`);
      const steps = [0, 1, 2].flatMap((i) => rungeKutta(times[i], times[i + 1], Math.floor(stride / 2)));
      const before = Math.max(0, 3 - start / 4);
      const known = (i: number) => Math.max(1, Math.min(before + i + 1 - Math.max(0, start - 12), 4));
      return [...steps, ...times.slice(3).map((t, i) => linearStep(t, stride, known(i)))];
    };

    return {
      predictionType,
      marginal: (t) => preserved(alphasCumprod[t]),
      plan({ steps, start }) {
        const times = spacedTimesteps(config, steps);
        checkTimesteps(name, alphasCumprod.length, times);
        const stride = Math.floor(alphasCumprod.length / steps);
        const calls = (config.skipPrkSteps ? twice : afterRungeKutta)(times, stride, start);
        return makePlan({ name, calls, start });
      },
    };
  },
});
