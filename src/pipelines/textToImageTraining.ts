import { z } from 'zod';
import type { ClipTextOptions, UNet2DConditionOptions } from '../models/index.js';
import { learningFields, trainConfig } from '../training/index.js';

const stages = (blockOutChannels: number[], layersPerBlock: number, normNumGroups: number, width: number) => ({
  blockOutChannels,
  layersPerBlock,
  normNumGroups,
  downBlockTypes: blockOutChannels.map(() => 'CrossAttnDownBlock2D' as const),
  upBlockTypes: blockOutChannels.map(() => 'CrossAttnUpBlock2D' as const),
  crossAttentionDim: width,
  attentionHeadDim: 4,
});
const text = (hiddenSize: number, numHiddenLayers: number): ClipTextOptions => ({
  hiddenSize,
  intermediateSize: 4 * hiddenSize,
  numHiddenLayers,
  numAttentionHeads: 4,
});

export interface TextToImagePreset {
  readonly unet: UNet2DConditionOptions;
  readonly text: ClipTextOptions;
}

/** Systems to train from scratch, by size: a UNet of latents and a text encoder. */
export const textToImagePresets: Readonly<Record<string, TextToImagePreset>> = {
  tiny: { unet: stages([8, 16], 1, 4, 16), text: text(16, 1) },
  xs: { unet: stages([64, 128], 1, 16, 128), text: text(128, 2) },
  s: { unet: stages([128, 256, 256], 2, 32, 256), text: text(256, 4) },
};

/** Everything that determines a text-to-image training: its run.json, and what `noisewright train-text-to-image` takes. */
export const textToImageTraining = z.strictObject({
  kind: z.literal('text-to-image').default('text-to-image'),
  /** A folder in diffusers' layout to begin with; without one, training is from scratch. */
  model: z.string().optional(),
  /** Of the model's folder, which must not change while a run goes on. */
  fingerprint: z.string().optional(),
  /** From scratch: the folder of an autoencoder, or of the run that trained it. */
  vae: z.string().optional(),
  /** From scratch: fields of UNet2DConditionModel's config in camelCase. */
  modelConfig: z.record(z.string(), z.unknown()).default({}),
  /** From scratch: fields of CLIPTextConfig in camelCase. */
  textConfig: z.record(z.string(), z.unknown()).default({}),
  /** From scratch: most entries of the tokenizer's vocabulary, which is learnt from the captions. */
  vocabulary: z.number().int().min(514).default(4096),
  /** From scratch: train the text encoder jointly, or leave it as it is drawn. */
  textEncoder: z.enum(['joint', 'fixed']).default('joint'),
  /** Flows: measure the error of the clean latents, not of the flow, as diffusers' SD3 script does unless it is told not to. */
  preconditionOutputs: z.boolean().default(false),
  /** A folder of pictures with captions: see `openCaptionFolder`. */
  data: z.string(),
  /** Side of the pictures; default: the model's. */
  size: z.number().int().positive().optional(),
  /** Train a LoRA of this rank instead of the model. */
  loraRank: z.number().int().positive().optional(),
  /** The LoRA's change is scaled by alpha / rank; default: rank. */
  loraAlpha: z.number().positive().optional(),
  /** Layers that the LoRA changes, as a regular expression; default: the projections of all attention. */
  loraTargets: z.string().optional(),
  /** Train a ControlNet, begun as a copy of the UNet, instead of the model. */
  controlnet: z.boolean().default(false),
  /** What a ControlNet is shown: the pictures named by `conditioning` in metadata.jsonl, or edges of the pictures. */
  hint: z.enum(['conditioning', 'edges']).default('conditioning'),
  /** Share of pictures that are trained with the empty prompt, for classifier-free guidance. */
  promptDropout: z.number().min(0).max(1).default(0.1),
  ...trainConfig.pick({
    skipCorrupt: true,
    predict: true,
    betaSchedule: true,
    trainTimesteps: true,
    zeroTerminalSnr: true,
    minSnrGamma: true,
    timestepDensity: true,
    flowWeighting: true,
  }).shape,
  ...learningFields,
  batch: z.number().int().positive().default(4),
  learningRate: z.number().positive().default(1e-4),
  clipNorm: z.number().positive().default(1),
  /** Without it, the weights themselves are written for use. */
  emaDecay: z.number().min(0).max(1).optional(),
});
export type TextToImageTraining = z.output<typeof textToImageTraining>;
export type TextToImageTrainingOptions = z.input<typeof textToImageTraining>;
