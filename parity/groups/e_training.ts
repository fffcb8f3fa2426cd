import { z } from 'zod';
import { type NdArray, ndarray } from '../../src/array/index.js';
import { drawNoiseLevels, flowWeights, noiseSchedule, signalToNoise } from '../../src/diffusion/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import { type EmaOptions, emaDecay, emaUpdate, type ScheduleName, schedule } from '../../src/training/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';
import { densityOf, weightingOf } from './h_flow_training.js';

const float64 = (values: readonly number[]): NdArray => ndarray([...values], undefined, 'float64');

/** The stored names under a prefix: `lr.cosine` is `cosine` under `lr`. */
const namesUnder = ({ tensors }: ReferenceCase, prefix: string): string[] =>
  [...tensors.keys()].filter((name) => name.startsWith(`${prefix}.`)).map((name) => name.slice(prefix.length + 1));

const scheduleSettings = z.object({
  scheduler: z.string(),
  num_warmup_steps: z.number().optional(),
  num_training_steps: z.number().optional(),
  num_cycles: z.number().optional(),
  power: z.number().optional(),
  step_rules: z.string().optional(),
  lr_end: z.number().optional(),
});

function learningRates(reference: ReferenceCase): Outputs {
  const { base_lr: learningRate, schedules } = reference.read(
    z.object({ base_lr: z.number(), schedules: z.record(z.string(), scheduleSettings) }),
  );
  const outputs: Record<string, NdArray> = {};
  for (const [name, settings] of Object.entries(schedules)) {
    const multiplier = schedule(settings.scheduler as ScheduleName, {
      warmupSteps: settings.num_warmup_steps,
      totalSteps: settings.num_training_steps,
      cycles: settings.num_cycles,
      power: settings.power,
      stepRules: settings.step_rules,
      endLearningRate: settings.lr_end,
      learningRate,
    });
    const steps = reference.tensors.get(`lr.${name}`)?.data.length ?? 0;
    outputs[`lr.${name}`] = float64(Array.from({ length: steps }, (_, i) => learningRate * multiplier(i)));
  }
  return outputs;
}

export const emaSettings = z.object({
  decay: z.number().optional(),
  min_decay: z.number().optional(),
  update_after_step: z.number().optional(),
  use_ema_warmup: z.boolean().optional(),
  inv_gamma: z.number().optional(),
  power: z.number().optional(),
});

/** Of diffusers' EMAModel. */
export const emaOptions = (settings: z.output<typeof emaSettings>): EmaOptions => ({
  decay: settings.decay,
  minDecay: settings.min_decay,
  updateAfterStep: settings.update_after_step,
  useEmaWarmup: settings.use_ema_warmup,
  invGamma: settings.inv_gamma,
  power: settings.power,
});

/** The weight starts at [1, -2] and grows by 0.1 sin(i) before step i; the average was made before that. */
async function averages(reference: ReferenceCase): Promise<Outputs> {
  const { schedules } = reference.read(z.object({ schedules: z.record(z.string(), emaSettings) }));
  const update = compile((average: Tensor, weight: Tensor, oneMinusDecay: Tensor) =>
    emaUpdate(average, weight, oneMinusDecay),
  );
  const outputs: Record<string, NdArray> = {};
  for (const [name, settings] of Object.entries(schedules)) {
    const steps = reference.tensors.get(`decay.${name}`)?.data.length ?? 0;
    const decays = Array.from({ length: steps }, (_, i) => emaDecay(i + 1, emaOptions(settings)));
    let weight = Float32Array.of(1, -2);
    let average: NdArray = ndarray(weight);
    const path: number[] = [];
    for (const [i, decay] of decays.entries()) {
      weight = weight.map((w) => w + Math.fround(0.1 * Math.sin(i)));
      average = await update(average, ndarray(weight), ndarray([1 - decay], []));
      path.push(...(average.data as Float32Array));
    }
    outputs[`decay.${name}`] = float64(decays);
    outputs[`shadow.${name}`] = ndarray(path, [steps, 2]);
  }
  await update.release();
  return outputs;
}

/** The noise schedules of the usual models, by the names of the case. */
const noiseSchedules = {
  linear: {},
  scaled_linear: { betaSchedule: 'scaled_linear', betaStart: 0.00085, betaEnd: 0.012 },
  cosine: { betaSchedule: 'squaredcos_cap_v2' },
} as const;

function lossWeights(reference: ReferenceCase): Outputs {
  const { seed } = reference.read(z.object({ seed: z.number() }));
  const outputs: Record<string, NdArray> = {};
  const timesteps = Array.from(reference.given('timesteps').data as BigInt64Array, Number);
  for (const name of namesUnder(reference, 'snr')) {
    if (!Object.hasOwn(noiseSchedules, name)) throw new Error(`no noise schedule is called '${name}'`);
    const { alphasCumprod } = noiseSchedule(noiseSchedules[name as keyof typeof noiseSchedules]);
    outputs[`snr.${name}`] = ndarray(signalToNoise(alphasCumprod, timesteps));
  }
  const sigmas = reference.given('sigmas').data as Float32Array<ArrayBuffer>;
  for (const name of namesUnder(reference, 'sd3_weight'))
    outputs[`sd3_weight.${name}`] = ndarray(flowWeights(weightingOf(name), sigmas));
  for (const name of namesUnder(reference, 'density')) {
    const count = reference.tensors.get(`density.${name}`)?.data.length ?? 0;
    outputs[`density.${name}`] = ndarray(drawNoiseLevels(densityOf(name), count, new Generator(seed)));
  }
  return outputs;
}

export const adapters: Readonly<Record<string, Adapter>> = {
  get_scheduler: learningRates,
  EMAModel: averages,
  training_utils: lossWeights,
};
