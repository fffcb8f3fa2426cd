import { z } from 'zod';
import { ndarray } from '../../src/array/index.js';
import { drawNoiseLevels, type FlowWeighting, flowWeights, type TimestepDensity } from '../../src/diffusion/index.js';
import { Generator } from '../../src/random/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

/** diffusers takes any other name for `uniform` and for `none`. */
export const densityOf = (scheme: string): TimestepDensity =>
  scheme === 'logit_normal' || scheme === 'mode' ? scheme : 'uniform';
export const weightingOf = (scheme: string): FlowWeighting =>
  scheme === 'sigma_sqrt' || scheme === 'cosmap' ? scheme : 'none';

function density(reference: ReferenceCase): Outputs {
  const { call } = reference.read(
    z.object({
      call: z.object({
        weighting_scheme: z.string(),
        logit_mean: z.number().optional(),
        logit_std: z.number().optional(),
        mode_scale: z.number().optional(),
        seed: z.number(),
      }),
    }),
  );
  const { logit_mean: logitMean, logit_std: logitStd, mode_scale: modeScale } = call;
  const count = reference.input('raw').data.length;
  const scheme = densityOf(call.weighting_scheme);
  return {
    'out.u': ndarray(drawNoiseLevels(scheme, count, new Generator(call.seed), { logitMean, logitStd, modeScale })),
  };
}

function weighting(reference: ReferenceCase): Outputs {
  const { call } = reference.read(z.object({ call: z.object({ weighting_scheme: z.string() }) }));
  const sigmas = reference.input('sigmas');
  const weights = flowWeights(weightingOf(call.weighting_scheme), sigmas.data as Float32Array<ArrayBuffer>);
  return { out: ndarray(weights, sigmas.shape) };
}

export const adapters: Readonly<Record<string, Adapter>> = {
  compute_density_for_timestep_sampling: density,
  compute_loss_weighting_for_sd3: weighting,
};
