import { z } from 'zod';
import { type NdArray, ndarray, zeros } from '../../src/array/index.js';
import { noiseSchedule, signalToNoise } from '../../src/diffusion/index.js';
import { denoiserClass } from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor, Variable } from '../../src/tensor/index.js';
import {
  adamW,
  emaDecay,
  type NamedParameters,
  type Optimizer,
  type TrainingBatch,
  trainingStep,
  variancePreserving,
} from '../../src/training/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';
import { emaOptions, emaSettings } from './e_training.js';

const settings = z.object({
  optimizer: z.object({
    lr: z.number(),
    betas: z.tuple([z.number(), z.number()]),
    eps: z.number(),
    weight_decay: z.number(),
  }),
  clip_grad_norm: z.number().nullable(),
  steps: z.number(),
  ema: emaSettings,
  n_batches: z.number(),
});

/** The whole group has Stable Diffusion's, as the note of unet_eps says. */
const schedule = { betaSchedule: 'scaled_linear', betaStart: 0.00085, betaEnd: 0.012 } as const;

/** Gives the noise and the timesteps that the case stores in place of drawn ones. */
class Replay extends Generator {
  batch: { noise: NdArray; timesteps: NdArray } | undefined;
  override randn<D extends 'float32' | 'float64'>(): NdArray<D> {
    return this.batch!.noise as NdArray<D>;
  }
  override randint<D extends 'int64' | 'int32'>(): NdArray<D> {
    return this.batch!.timesteps as NdArray<D>;
  }
}

/** Keeps the gradients and changes nothing. */
function recorder(parameters: NamedParameters): Optimizer {
  const seen = new Map([...parameters].map(([name, p]) => [name, new Variable(zeros(p.shape), false, name)]));
  return {
    state: seen,
    hyperparameters: () => [],
    update(gradients) {
      for (const [i, v] of [...seen.values()].entries()) v.assign(gradients[i]);
      return [...parameters.values()];
    },
  };
}

/**
 * Some steps on the stored batches in turn, through the training step that `noisewright train` takes.
 * Cases that predict v or weight the loss are known by storing both.
 */
async function training(reference: ReferenceCase): Promise<Outputs> {
  const { optimizer: adam, steps, ema, clip_grad_norm, n_batches } = reference.read(settings);
  const model = denoiserClass(reference.kind).fromJson(reference.config, new Generator(0));
  model.loadStateDict(reference.weights);
  const batches = Array.from({ length: n_batches }, (_, i) => {
    const stored = (name: string) => reference.given(`batch${i}.${name}`);
    const timesteps = stored('timesteps');
    const labelled = reference.tensors.has(`batch${i}.class_labels`);
    const batch: TrainingBatch = { images: stored('latents'), labels: labelled ? stored('class_labels') : timesteps };
    return { ...batch, noise: stored('noise'), timesteps };
  });
  const objective = variancePreserving({
    schedule,
    predictionType: reference.tensors.has('mid0.target') ? 'v' : 'epsilon',
    minSnrGamma: reference.tensors.has('mid0.weight') ? 5 : undefined,
  });
  const rng = new Replay(0);
  rng.batch = batches[0];
  const outputs: Record<string, NdArray> = {};
  const keep = (prefix: string, variables: Iterable<readonly [string, Variable]>) => {
    for (const [name, { value }] of variables) outputs[`${prefix}.${name}`] = value;
  };

  const look = compile((images: Tensor, labels: Tensor) => {
    const { x, timestep, target, weight } = objective.noisy(images, rng);
    const known = model.nullClass === undefined ? undefined : labels;
    return { x, target, weight: weight ?? timestep, prediction: model.forward(x, timestep, known) };
  });
  const first = await look(batches[0].images, batches[0].labels);
  Object.assign(outputs, { 'mid0.noisy': first.x, pred0: first.prediction });
  const times = Array.from(batches[0].timesteps.data, Number);
  const snr = signalToNoise(noiseSchedule(schedule).alphasCumprod, times);
  Object.assign(outputs, { 'mid0.target': first.target, 'mid0.weight': first.weight, 'mid0.snr': ndarray(snr) });
  await look.release();

  const parameters = model.namedParameters();
  const record = recorder(parameters);
  const probe = trainingStep({ model, objective, optimizer: record, rng });
  await probe.run([batches[0]], 1, 0, 0);
  await probe.release();
  keep('grad', record.state);

  const averages = new Map(
    [...parameters].map(([name, p]) => [
      name,
      new Variable(ndarray(Float32Array.from(p.value.data as Float32Array), p.shape), false, name),
    ]),
  );
  const optimizer = adamW(parameters, { betas: adam.betas, eps: adam.eps, weightDecay: adam.weight_decay });
  const clipNorm = clip_grad_norm ?? undefined;
  const step = trainingStep({ model, objective, optimizer, rng, clipNorm, ema: averages });
  const decays = Array.from({ length: steps }, (_, i) => emaDecay(i + 1, emaOptions(ema)));
  const results = [];
  for (const [i, decay] of decays.entries()) {
    rng.batch = batches[i % n_batches];
    results.push(await step.run([batches[i % n_batches]], i + 1, adam.lr, decay));
  }
  await step.release();
  keep('after', parameters);
  keep('ema', averages);
  outputs.losses = ndarray(results.map(({ loss }) => loss));
  outputs.grad_norms = ndarray(results.map(({ gradientNorm }) => gradientNorm));
  outputs.ema_decays = ndarray(decays, undefined, 'float64');
  return outputs;
}

export const adapters: Readonly<Record<string, Adapter>> = { DiTTransformer2DModel: training, UNet2DModel: training };
