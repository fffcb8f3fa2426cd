import { z } from 'zod';
import { type NdArray, ndarray, zeros } from '../../src/array/index.js';
import { noiseSchedule, signalToNoise } from '../../src/diffusion/index.js';
import { AutoencoderKL, type Denoiser, modelClass, SD3Transformer2D, UNet2DCondition } from '../../src/models/index.js';
import type { Module } from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor, Variable } from '../../src/tensor/index.js';
import {
  adamW,
  type BatchOf,
  emaDecay,
  type Learner,
  learningStep,
  type NamedParameters,
  type NoisyBatch,
  type Optimizer,
  rectifiedFlow,
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

/** Gives the noise and the timesteps (or a flow's sigmas) that the case stores in place of drawn ones. */
class Replay extends Generator {
  batch: { noise: NdArray; timesteps?: NdArray; sigmas?: NdArray } | undefined;
  override randn<D extends 'float32' | 'float64'>(): NdArray<D> {
    return this.batch!.noise as NdArray<D>;
  }
  override randint<D extends 'int64' | 'int32'>(): NdArray<D> {
    return this.batch!.timesteps as NdArray<D>;
  }
  /** From which a flow's uniform density makes sigma = 1 - u. */
  override rand<D extends 'float32' | 'float64'>(): NdArray<D> {
    const { data, shape } = this.batch!.sigmas as NdArray<'float32'>;
    const u: NdArray = ndarray(
      data.map((sigma) => 1 - sigma),
      shape,
    );
    return u as NdArray<D>;
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

/** A system in training: what it learns, and what it makes of the first batch on the way, by the stored names. */
interface System extends Learner {
  readonly model: Module;
  look(batch: BatchOf<Tensor>): Readonly<Record<string, Tensor>>;
}

/** Cases that predict v or weight the loss are known by storing both. */
function denoising<M extends Module>(
  { tensors }: ReferenceCase,
  model: M,
  rng: Replay,
  predict: (x: Tensor, timestep: Tensor, batch: BatchOf<Tensor>) => Tensor,
): System {
  const objective = tensors.has('batch0.sigmas')
    ? rectifiedFlow({ density: 'uniform' })
    : variancePreserving({
        schedule,
        predictionType: tensors.has('mid0.target') ? 'v' : 'epsilon',
        minSnrGamma: tensors.has('mid0.weight') ? 5 : undefined,
      });
  const prepare = ({ images, ...rest }: BatchOf<Tensor>): BatchOf<Tensor> => {
    const { x, timestep, target, weight } = objective.noisy(images, rng);
    return { x, timestep, target, ...(weight && { weight }), ...rest };
  };
  return {
    model,
    parameters: model.namedParameters(),
    prepare,
    loss: (part) => objective.loss(predict(part.x, part.timestep, part), part as NoisyBatch),
    look(batch) {
      const part = prepare(batch);
      return {
        'mid0.noisy': part.x,
        'mid0.target': part.target,
        pred0: predict(part.x, part.timestep, part),
        ...(part.weight && { 'mid0.weight': part.weight }),
      };
    },
  };
}

/** Reconstruction and, a thousandth of it, the divergence from a standard normal, as the note of vae_recon_kl says. */
function autoencoding(model: AutoencoderKL): System {
  const through = ({ images, noise }: BatchOf<Tensor>) => {
    const posterior = model.encode(images);
    const z = posterior.sample(noise);
    return { z, kl: posterior.kl().mean(), reconstruction: model.decode(z) };
  };
  return {
    model,
    parameters: model.namedParameters(),
    prepare: (batch) => batch,
    loss(part) {
      const { kl, reconstruction } = through(part);
      return reconstruction.sub(part.images).square().mean().add(kl.mul(1e-3));
    },
    look(batch) {
      const { z, kl, reconstruction } = through(batch);
      return { 'mid0.z': z, 'mid0.kl': kl, pred0: reconstruction };
    },
  };
}

function systemOf(reference: ReferenceCase, rng: Replay): System {
  const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0));
  model.loadStateDict(reference.weights);
  if (model instanceof AutoencoderKL) return autoencoding(model);
  if (model instanceof UNet2DCondition)
    return denoising(reference, model, rng, (x, timestep, batch) =>
      model.forward(x, timestep, {
        encoderHiddenStates: batch.encoder_hidden_states,
        ...(batch.class_labels && { classLabels: batch.class_labels }),
      }),
    );
  if (model instanceof SD3Transformer2D)
    return denoising(reference, model, rng, (x, timestep, batch) =>
      model.forward(x, timestep, {
        encoderHiddenStates: batch.encoder_hidden_states,
        pooledProjections: batch.pooled,
      }),
    );
  const denoiser = model as Denoiser;
  return denoising(reference, denoiser, rng, (x, timestep, batch) => denoiser.forward(x, timestep, batch.class_labels));
}

/** What the case stores of a batch, the images first; what training would draw goes to the replay. */
function batchOf(
  reference: ReferenceCase,
  i: number,
): { arrays: BatchOf<NdArray>; drawn: NonNullable<Replay['batch']> } {
  const prefix = `batch${i}.`;
  const names = [...reference.tensors.keys()].filter((name) => name.startsWith(prefix));
  const stored = Object.fromEntries(names.map((name) => [name.slice(prefix.length), reference.given(name)]));
  const { latents, image, noise, timesteps, sigmas, ...conditions } = stored;
  const arrays = { images: latents ?? image, ...(image && { noise }), ...conditions };
  return { arrays, drawn: { noise, timesteps, sigmas } };
}

/** Some steps on the stored batches in turn, through the training step that `noisewright train` takes. */
async function training(reference: ReferenceCase): Promise<Outputs> {
  const { optimizer: adam, steps, ema, clip_grad_norm, n_batches } = reference.read(settings);
  const rng = new Replay(0);
  const learner = systemOf(reference, rng);
  const batches = Array.from({ length: n_batches }, (_, i) => batchOf(reference, i));
  const [{ arrays, drawn }] = batches;
  rng.batch = drawn;
  const outputs: Record<string, NdArray> = {};
  const keep = (prefix: string, variables: Iterable<readonly [string, Variable]>) => {
    for (const [name, { value }] of variables) outputs[`${prefix}.${name}`] = value;
  };

  const look = compile((batch: BatchOf<Tensor>) => learner.look(batch));
  Object.assign(outputs, await look(arrays));
  await look.release();
  const times = Array.from(drawn.timesteps?.data ?? [], Number);
  outputs['mid0.snr'] = ndarray(signalToNoise(noiseSchedule(schedule).alphasCumprod, times));

  const { parameters } = learner;
  const record = recorder(parameters);
  const probe = learningStep({ learner, optimizer: record, rng });
  await probe.run([arrays], 1, 0, 0);
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
  const step = learningStep({ learner, optimizer, rng, clipNorm, ema: averages });
  const decays = Array.from({ length: steps }, (_, i) => emaDecay(i + 1, emaOptions(ema)));
  const results = [];
  for (const [i, decay] of decays.entries()) {
    const batch = batches[i % n_batches];
    rng.batch = batch.drawn;
    results.push(await step.run([batch.arrays], i + 1, adam.lr, decay));
  }
  await step.release();
  keep('after', parameters);
  keep('ema', averages);
  outputs.losses = ndarray(results.map(({ loss }) => loss));
  outputs.grad_norms = ndarray(results.map(({ gradientNorm }) => gradientNorm));
  outputs.ema_decays = ndarray(decays, undefined, 'float64');
  return outputs;
}

const classes = [
  'DiTTransformer2DModel',
  'UNet2DModel',
  'UNet2DConditionModel',
  'SD3Transformer2DModel',
  'AutoencoderKL',
] as const;
export const adapters: Readonly<Record<string, Adapter>> = Object.fromEntries(classes.map((name) => [name, training]));
