import type { NdArray } from '../array/index.js';
import type { NoiseScheduleConfig } from '../diffusion/index.js';
import {
  type AutoencoderKL,
  type CLIPTextModel,
  type ControlNet,
  DiagonalGaussian,
  type Lora,
  type StoredModel,
} from '../models/index.js';
import { type Module, withLowRank } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Sampler } from '../samplers/index.js';
import { constant, rand, type Tensor, type Variable, where } from '../tensor/index.js';
import {
  type BatchOf,
  type Learner,
  type NoisyBatch,
  type Objective,
  type RectifiedFlowOptions,
  rectifiedFlow,
  variancePreserving,
} from '../training/index.js';
import type { Tensors } from './denoise.js';
import type { TextConditioned } from './textToImage.js';

/** What of a text-to-image system is trained, by the folders' names; the rest of it stays as it is. */
export interface TrainedParts {
  readonly unet?: StoredModel;
  readonly transformer?: StoredModel;
  readonly text_encoder?: CLIPTextModel;
  readonly controlnet?: ControlNet;
  readonly lora?: Lora;
}

export interface TextToImageLearning {
  readonly model: TextConditioned;
  readonly vae: AutoencoderKL;
  readonly trained: TrainedParts;
  readonly objective: Objective;
  /** What the empty prompt tells the model: [1, ...] by the conditions' names, or `inputIds` with a trained text encoder. */
  readonly empty: Readonly<Record<string, NdArray>>;
  /** Share of samples that are told the empty prompt. */
  readonly promptDropout: number;
}

/** Every variable of the parts, under their names: `unet.conv_in.weight`. */
export const variablesOf = (parts: TrainedParts): Map<string, Variable> =>
  new Map(
    Object.entries(parts as Record<string, Module | undefined>).flatMap(([part, module]) =>
      [...(module?.namedVariables() ?? [])].map(([name, v]) => [`${part}.${name}`, v] as const),
    ),
  );

/**
 * The loop of latent diffusion (Rombach et al. 2022), as diffusers' train_text_to_image scripts have it: latents drawn
 * from the autoencoder's moments and scaled, noised at a random timestep, and a model that says what the objective asks,
 * told the prompt or, now and then, the empty one. Batches are `moments` [N, 2 C, h, w], `hint` [N, 3, H, W] in [0, 1]
 * for a ControlNet, `timeIds` [N, 6] for SDXL, which prompts left out do not change, and the conditions [N, ...] by their
 * names.
 */
export function textToImageLearner(system: TextToImageLearning, rng: Generator): Learner {
  const { model, vae, trained, objective, empty, promptDropout } = system;
  const names = Object.keys(empty);
  return {
    parameters: new Map([...variablesOf(trained)].filter(([, v]) => v.trainable)),
    prepare(batch) {
      const { moments, hint, timeIds } = batch;
      const latents = vae.scaleLatents(new DiagonalGaussian(moments).sample(rng));
      const noisy = Object.entries(objective.noisy(latents, rng)).filter((entry) => entry[1] !== undefined);
      const drop = rand([moments.shape[0]], rng).less(promptDropout);
      const told = names.map((name) => [name, dropped(batch[name], constant(empty[name]), drop)]);
      const shown = Object.entries({ hint, timeIds }).filter(([, tensor]) => tensor !== undefined);
      return Object.fromEntries([...noisy, ...told, ...shown]) as BatchOf<Tensor>;
    },
    loss(part) {
      const told = Object.fromEntries(names.map((name) => [name, part[name]]));
      const conditions = conditionsOf(trained, { ...told, ...(part.timeIds && { timeIds: part.timeIds }) });
      const answer = prediction(model, trained, part, conditions);
      const channels = part.x.shape[1];
      // What PixArt says of the variance is not trained further, as in diffusers' script.
      const mean = answer.shape[1] > channels ? answer.slice(1, 0, channels) : answer;
      return objective.loss(mean, part as NoisyBatch);
    },
  };
}

/** With the empty prompt's row where a sample is dropped. */
function dropped(told: Tensor, empty: Tensor, drop: Tensor): Tensor {
  const each = drop.reshape([told.shape[0], ...told.shape.slice(1).map(() => 1)]);
  return where(each, empty, told);
}

function conditionsOf({ text_encoder: encoder }: TrainedParts, told: Tensors): Tensors {
  if (!encoder) return told;
  const { inputIds, ...others } = told;
  return { ...others, encoderHiddenStates: encoder.forward(inputIds as Tensor).lastHiddenState };
}

function prediction(
  model: TextConditioned,
  { controlnet, lora }: TrainedParts,
  { x, timestep, hint }: BatchOf<Tensor>,
  conditions: Tensors,
): Tensor {
  if (lora) return withLowRank(lora.changes(), () => model.forward(x, timestep, conditions));
  if (!controlnet) return model.forward(x, timestep, conditions);
  const { down, mid } = controlnet.forward(x, timestep, hint, conditions as Parameters<ControlNet['forward']>[3]);
  const residuals = { downBlockAdditionalResiduals: down, midBlockAdditionalResidual: mid };
  return model.forward(x, timestep, { ...conditions, ...residuals } as unknown as Tensors);
}

/** What a sampler does not say of the loss. */
export interface ObjectiveOptions extends Pick<RectifiedFlowOptions, 'density' | 'weighting' | 'preconditionOutputs'> {
  /** Not for flows. */
  readonly minSnrGamma?: number;
}

/** The objective that a model of this sampler was trained with: its noise schedule, or straight flows, shifted as it does. */
export function objectiveFor(sampler: Sampler, { minSnrGamma, ...flow }: ObjectiveOptions = {}): Objective {
  const { predictionType, config } = sampler;
  if (predictionType === 'flow') {
    const { shift, useDynamicShifting } = config as { readonly shift?: number; readonly useDynamicShifting?: boolean };
    return rectifiedFlow({ ...flow, shift: useDynamicShifting ? 1 : shift });
  }
  if (predictionType === 'score') throw new TypeError(`${sampler.className}: score models are not trained here`);
  return variancePreserving({ predictionType, schedule: config as Partial<NoiseScheduleConfig>, minSnrGamma });
}
