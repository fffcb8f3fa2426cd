import { z } from 'zod';
import { chainSigmas, reverseChain, reverseDrift, type Sde, sdeTimes, veSde, vpSde } from '../diffusion/index.js';
import { type Linear, noise, prediction, slot, sum, x } from './linear.js';
import { x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, startField, stepsField } from './sampler.js';
import { interpolate } from './sigmas.js';

const options = {
  steps: stepsField.default(1000),
  start: startField,
  /** Leave out the noise of the last step. */
  denoise: z.boolean().default(true),
};

/** Euler-Maruyama over dt = 1 / count: from x, with `score` as the score. */
export function eulerMaruyama(sde: Sde, t: number, count: number, score: Linear, probabilityFlow = false): Linear {
  const form = reverseDrift(sde, t, probabilityFlow);
  return sum([1 - form.x / count, x], [-form.score / count, score], [form.noise / Math.sqrt(count), noise]);
}

/** The chain's own step in reverse. */
export function reverseDiffusion(sde: Sde, t: number, count: number, score: Linear, probabilityFlow = false): Linear {
  const form = reverseChain(sde, t, count, probabilityFlow);
  return sum([1 - form.x, x], [-form.score, score], [form.noise, noise]);
}

/** A Langevin step whose size follows the norms of score and noise, Song et al. 2021, algorithms 4 and 5. */
export const langevin = (snr: number, alpha: number): Linear =>
  sum([1, x], [2 * alpha * snr ** 2, slot('climb')], [2 * Math.sqrt(alpha) * snr, slot('shake')]);

/** A form without its noise. */
export const mean = ({ noise: _, ...form }: Linear): Linear => form;

/**
 * Predictor-corrector sampling of the variance exploding SDE: reverse diffusion, `correctSteps` Langevin steps before
 * each. The denoiser is told sigma and answers with the score. Follows diffusers' ScoreSdeVeScheduler.
 */
export const scoreSdeVe = defineSampler({
  className: 'ScoreSdeVeScheduler',
  config: {
    numTrainTimesteps: z.number().int().positive().default(2000),
    snr: z.number().positive().default(0.15),
    sigmaMin: z.number().positive().default(0.01),
    sigmaMax: z.number().positive().default(1348),
    samplingEps: z.number().positive().default(1e-5),
    correctSteps: z.number().int().min(0).default(1),
  },
  options,

  create({ numTrainTimesteps, snr, sigmaMin, sigmaMax, samplingEps, correctSteps }) {
    const sde = veSde({ sigmaMin, sigmaMax });
    const trained = chainSigmas(sigmaMin, sigmaMax, numTrainTimesteps);
    return {
      predictionType: 'score',
      /** By the place among the training chain's noise levels, rising. */
      marginal: (timestep) => ({ alpha: 1, sigma: interpolate(trained, timestep) }),
      plan({ steps, start, denoise }) {
        const calls = sdeTimes(steps, samplingEps).flatMap((t, i): SamplerCall[] => {
          const marginal = sde.marginal(t);
          const call = (to: Linear): SamplerCall => ({
            ...marginal,
            timestep: Math.fround(marginal.sigma),
            inputScale: 1,
            x0: x0Form('score', marginal),
            score: prediction,
            next: { x: to },
          });
          const predicted = reverseDiffusion(sde, t, steps, prediction);
          const corrections = Array.from({ length: correctSteps }, () => call(langevin(snr, 1)));
          return [...corrections, call(denoise && i === steps - 1 ? mean(predicted) : predicted)];
        });
        const sigmas = Float32Array.from([...calls.map((call) => call.sigma), 0]);
        return makePlan({ name: 'ScoreSdeVeScheduler', calls, initialScale: sigmaMax, sigmas, start });
      },
    };
  },
});

/** The noise level of the variance preserving SDE as diffusers rounds it, which shows near t = 0. */
function roundedSigma(t: number, betaMin: number, betaMax: number): number {
  const f = Math.fround;
  const logMean = f(f(f(-0.25 * f(t * t)) * f(betaMax - betaMin)) - f(f(0.5 * t) * f(betaMin)));
  return f(Math.sqrt(f(1 - f(Math.exp(2 * logMean)))));
}

/**
 * Euler-Maruyama for the variance preserving SDE. The denoiser is told 999 t, as Song et al. train it, and answers with
 * the noise. Follows diffusers' ScoreSdeVpScheduler.
 */
export const scoreSdeVp = defineSampler({
  className: 'ScoreSdeVpScheduler',
  config: {
    numTrainTimesteps: z.number().int().positive().default(2000),
    betaMin: z.number().positive().default(0.1),
    betaMax: z.number().positive().default(20),
    samplingEps: z.number().positive().default(1e-3),
  },
  options,

  create({ betaMin, betaMax, samplingEps }) {
    const sde = vpSde({ betaMin, betaMax });
    return {
      predictionType: 'epsilon',
      marginal: (timestep) => sde.marginal(timestep / 999),
      plan({ steps, start, denoise }) {
        const calls = sdeTimes(steps, samplingEps).map((t, i): SamplerCall => {
          const marginal = sde.marginal(t);
          const predicted = eulerMaruyama(sde, t, steps, sum([-1 / roundedSigma(t, betaMin, betaMax), prediction]));
          return {
            ...marginal,
            timestep: Math.fround(999 * t),
            inputScale: 1,
            x0: x0Form('epsilon', marginal),
            next: { x: denoise && i === steps - 1 ? mean(predicted) : predicted },
          };
        });
        return makePlan({ name: 'ScoreSdeVpScheduler', calls, start });
      },
    };
  },
});
