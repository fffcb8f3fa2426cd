import { z } from 'zod';
import {
  noiseSchedule,
  type PredictionType,
  type Sde,
  sdeNames,
  sdeTimes,
  subVpSde,
  veSde,
  vpSde,
} from '../diffusion/index.js';
import { predictionField, predictionTypeOf, scheduleFields } from './config.js';
import { type Linear, noise, substitute, sum, x, x0 } from './linear.js';
import { epsilonForm, type Marginal, preservedAtRatio, rectified, x0Form } from './marginal.js';
import { makePlan, type SamplerCall } from './plan.js';
import { defineSampler, type Sampler, startField, stepsField } from './sampler.js';
import { eulerMaruyama, langevin, mean, reverseDiffusion } from './scoreSde.js';
import { interpolate, logOf, sigmasOf, sigmaToTimestep, withFiniteSigmas } from './sigmas.js';

const name = 'PredictorCorrector';

/** How a denoiser that was trained on another process is asked about x of an SDE. */
export interface Conditioning {
  /** What the denoiser is told the time is. */
  readonly timestep: number;
  /** It sees inputScale * x, which is distributed as it was trained on. */
  readonly inputScale: number;
  /** Over x and the prediction. */
  readonly x0: Linear;
  readonly score: Linear;
}

const conditioningFields = {
  ...scheduleFields,
  predictionType: predictionField('epsilon', 'sample', 'v_prediction', 'flow_prediction', 'score'),
  /** Networks trained on the SDE's own continuous time are told 999 t, or sigma where the variance explodes. */
  conditioning: z.enum(['schedule', 'continuous']).default('schedule'),
};

type ConditioningConfig = Omit<z.output<z.ZodObject<typeof conditioningFields>>, 'predictionType'> & {
  readonly predictionType: PredictionType;
};

/** Scores are learned in the SDE's own time. */
const isContinuous = (config: ConditioningConfig): boolean =>
  config.conditioning === 'continuous' || config.predictionType === 'score';

const trainedRatios = (config: ConditioningConfig): Float32Array =>
  sigmasOf(withFiniteSigmas(noiseSchedule(config).alphasCumprod));

/** Of the SDE, in Song et al.'s names. */
export const sdeFields = {
  sde: z.enum(sdeNames).default('vp'),
  betaMin: z.number().positive().default(0.1),
  betaMax: z.number().positive().default(20),
  sigmaMin: z.number().positive().default(0.01),
  sigmaMax: z.number().positive().default(50),
};

export const sdeOf = ({ sde, ...range }: z.output<z.ZodObject<typeof sdeFields>>): Sde =>
  sde === 'vp' ? vpSde(range) : sde === 'subvp' ? subVpSde(range) : veSde(range);

/**
 * Every process here mixes data and noise, so at an equal ratio of noise to signal two of them differ in scale only: a
 * denoiser trained on a discrete schedule, or on rectified flow, gives the score of any SDE at any t.
 * @returns how to ask it, by t. Ratios outside those it was trained on are asked about at its nearest timestep.
 */
export function conditioning(sde: Sde, config: ConditioningConfig): (t: number) => Conditioning {
  const { predictionType, numTrainTimesteps } = config;
  const logSigmas = logOf(trainedRatios(config));
  return (t) => {
    const at = sde.marginal(t);
    const ratio = at.sigma / at.alpha;
    const continuous = isContinuous(config);
    const flow = predictionType === 'flow';
    const trained: Marginal = continuous ? at : flow ? rectified(ratio / (1 + ratio)) : preservedAtRatio(ratio);
    const inputScale = trained.alpha / at.alpha;
    const label = flow ? trained.sigma * numTrainTimesteps : sigmaToTimestep(ratio, logSigmas);
    const seen = (form: Linear) => substitute(form, 'x', sum([inputScale, x]));
    return {
      timestep: Math.fround(!continuous ? label : sde.name === 've' ? at.sigma : 999 * t),
      inputScale,
      x0: seen(x0Form(predictionType, trained)),
      score: sum([-1 / at.sigma, seen(epsilonForm(predictionType, trained))]),
    };
  };
}

/**
 * Predictor-corrector sampling of a score SDE, Song et al. 2021, algorithm 1: at each time the corrector's Langevin
 * steps, then one predictor step towards the data, each with a call of the denoiser. Follows score_sde_pytorch.
 */
export const predictorCorrector = defineSampler({
  className: name,
  config: {
    ...conditioningFields,
    ...sdeFields,
    predictor: z
      .enum(['euler_maruyama', 'reverse_diffusion', 'ancestral_sampling', 'none'])
      .default('reverse_diffusion'),
    corrector: z.enum(['langevin', 'ald', 'none']).default('langevin'),
    /** Signal-to-noise ratio that sets the corrector's step size. */
    snr: z.number().positive().default(0.16),
    correctorSteps: z.number().int().positive().default(1),
    /** The time at which the reverse process ends, short of 0; null: 1 / steps, better for few. */
    samplingEps: z.number().positive().max(1).nullable().default(1e-3),
    /** Let the predictor follow the deterministic twin of the reverse SDE. */
    probabilityFlow: z.boolean().default(false),
  },
  options: {
    steps: stepsField.default(1000),
    start: startField,
    /** Leave out the noise of the last predictor step; 'tweedie' ends in the estimate of the clean sample instead. */
    denoise: z.union([z.boolean(), z.literal('tweedie')]).default(true),
  },

  create(config) {
    const { predictor, corrector, snr, correctorSteps, samplingEps, probabilityFlow } = config;
    const sde = sdeOf(config);
    const predictionType = predictionTypeOf(config.predictionType);
    const ask = conditioning(sde, { ...config, predictionType });
    if (predictor === 'none' && corrector === 'none')
      throw new TypeError(`${name}: expected a predictor or a corrector, got none of either`);
    if (predictor === 'ancestral_sampling' && (sde.name === 'subvp' || probabilityFlow))
      throw new TypeError(
        `${name}: predictor ancestral_sampling is for the vp and ve SDEs without probabilityFlow; use reverse_diffusion`,
      );

    const predict = (t: number, steps: number, score: Linear): Linear | undefined => {
      if (predictor === 'none') return undefined;
      if (predictor === 'euler_maruyama') return eulerMaruyama(sde, t, steps, score, probabilityFlow);
      if (predictor === 'ancestral_sampling') return ancestral(sde, t, steps, score);
      return reverseDiffusion(sde, t, steps, score, probabilityFlow);
    };
    const correct = (t: number, steps: number, score: Linear): Linear => {
      const { alpha } = sde.chain(t, steps);
      if (corrector === 'langevin') return langevin(snr, alpha);
      const size = (snr * sde.marginal(t).sigma) ** 2 * 2 * alpha; // annealed Langevin dynamics
      return sum([1, x], [size, score], [Math.sqrt(2 * size), noise]);
    };

    return {
      predictionType,
      marginal: (timestep) => levelAt(sde, timestep, { ...config, predictionType }),
      plan({ steps, start, denoise }) {
        const least = sde.name === 've' || predictor === 'euler_maruyama' ? 1 : Math.floor(config.betaMax) + 1;
        if (steps < least)
          throw new RangeError(`${name}: expected at least ${least} steps for betaMax ${config.betaMax}, got ${steps}`);
        const calls = sdeTimes(steps, samplingEps ?? 1 / steps).flatMap((t, i): SamplerCall[] => {
          const { score, ...asked } = ask(t);
          const call = (to: Linear): SamplerCall => ({
            ...sde.marginal(t),
            ...asked,
            ...(corrector === 'langevin' && { score }),
            next: { x: to },
          });
          const predicted = predict(t, steps, score);
          const ending = i === steps - 1 ? denoise : false;
          const corrections = corrector === 'none' ? 0 : correctorSteps;
          return [
            ...Array.from({ length: corrections }, () => call(correct(t, steps, score))),
            ...(predicted ? [call(ending === 'tweedie' ? x0 : ending ? mean(predicted) : predicted)] : []),
          ];
        });
        return makePlan({ name, calls, initialScale: sde.priorSigma, start });
      },
    };
  },
});

const diffusersNames = {
  epsilon: 'epsilon',
  x0: 'sample',
  v: 'v_prediction',
  flow: 'flow_prediction',
  score: 'score',
} as const;

/**
 * Predictor-corrector sampling for the denoiser that another sampler is for, set up to end cleanly after few steps.
 * @param config what to change.
 */
export function predictorCorrectorFor(
  own: Sampler,
  config: Parameters<typeof predictorCorrector>[0] = {},
): ReturnType<typeof predictorCorrector> {
  const keys = new Set<string>(predictorCorrector.configKeys);
  const shared = Object.fromEntries(Object.entries(own.config).filter(([key]) => keys.has(key)));
  const predictionType = diffusersNames[own.predictionType];
  return predictorCorrector({ ...shared, predictionType, samplingEps: null, ...config }, { denoise: 'tweedie' });
}

/** How noisy x of the SDE is where a denoiser is told this timestep. */
function levelAt(sde: Sde, timestep: number, config: ConditioningConfig): Marginal {
  if (isContinuous(config)) return sde.name === 've' ? { alpha: 1, sigma: timestep } : sde.marginal(timestep / 999);
  const flow = timestep / config.numTrainTimesteps;
  const ratio = config.predictionType === 'flow' ? flow / (1 - flow) : interpolate(trainedRatios(config), timestep);
  if (sde.name === 'vp') return preservedAtRatio(ratio);
  if (sde.name === 've') return { alpha: 1, sigma: ratio };
  const alpha = (Math.sqrt(ratio ** 2 + 4) - ratio) / 2; // sigma = 1 - alpha^2
  return { alpha, sigma: ratio * alpha };
}

/** The posterior step of the chain: DDPM's for vp, SMLD's for ve; Song et al. 2021, equations 4 and 47. */
function ancestral(sde: Sde, t: number, count: number, score: Linear): Linear {
  const { diffusion, previous, alpha } = sde.chain(t, count);
  if (previous === undefined) {
    const scale = 1 / Math.sqrt(alpha);
    return sum([scale, x], [scale * diffusion ** 2, score], [diffusion, noise]);
  }
  const sigma = Math.hypot(previous, diffusion);
  return sum([1, x], [diffusion ** 2, score], [(previous * diffusion) / sigma, noise]);
}
