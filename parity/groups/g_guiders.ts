import { z } from 'zod';
import { ndarray } from '../../src/array/index.js';
import {
  cfg,
  type Guider,
  guidePrediction,
  rescaleGuidance,
  type StepInfo,
  unguided,
} from '../../src/guidance/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const cfgConfig = z.object({
  guidance_scale: z.number().default(7.5),
  guidance_rescale: z.number().default(0),
  use_original_formulation: z.boolean().default(false),
  start: z.number().default(0),
  stop: z.number().default(1),
  enabled: z.boolean().default(true),
});

function classifierFree(reference: ReferenceCase): Promise<Outputs> {
  const config = cfgConfig.parse(reference.config);
  const guider = cfg(config.guidance_scale, {
    interval: [config.start, config.stop],
    rescale: config.guidance_rescale,
    convention: config.use_original_formulation ? 'paper' : 'standard',
  });
  return guided(reference, config.enabled ? guider : unguided());
}

/** Where the cases keep the prediction of a branch. */
const storedAs: Readonly<Record<string, string>> = { positive: 'pred_cond', negative: 'pred_uncond' };

/** Every step of a guider; the first axis of every tensor is the step. */
async function guided(reference: ReferenceCase, guider: Guider): Promise<Outputs> {
  const { call } = reference.read(z.object({ call: z.object({ num_inference_steps: z.number() }) }));
  const { shape } = reference.input('pred_cond');
  const [steps, ...each] = shape;
  const size = each.reduce((n, d) => n * d, 1);
  const out = new Float32Array(steps * size);
  for (let index = 0; index < steps; index++) {
    const step: StepInfo = { index, total: call.num_inference_steps, timestep: 0 };
    const names = guider.branches(step).map((branch) => branch.name);
    const run = compile((inputs: Tensor, predictions: readonly Tensor[]) => {
      const byName = new Map(predictions.map((prediction, i) => [names[i], prediction]));
      return guidePrediction(guider, byName, inputs, [], each[1]).prediction;
    });
    const predictions = names.map((name) => {
      const all = reference.input(storedAs[name]).data as Float32Array;
      return ndarray(all.slice(index * size, (index + 1) * size), each);
    });
    const result = await run(ndarray([...guider.inputs(step)]), predictions);
    await run.release();
    out.set(result.data as Float32Array, index * size);
  }
  return { 'out.pred': ndarray(out, shape) };
}

async function rescaled(reference: ReferenceCase): Promise<Outputs> {
  const { call } = reference.read(z.object({ call: z.object({ guidance_rescale: z.number() }) }));
  const run = compile((a: Tensor, b: Tensor, share: Tensor) => rescaleGuidance(a, b, share));
  const share = ndarray([call.guidance_rescale]);
  const out = await run(reference.input('noise_cfg'), reference.input('noise_pred_text'), share);
  await run.release();
  return { out };
}

export const adapters: Readonly<Record<string, Adapter>> = {
  ClassifierFreeGuidance: classifierFree,
  rescale_noise_cfg: rescaled,
};
