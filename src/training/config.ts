import { z } from 'zod';
import {
  betaSchedules,
  type FlowPath,
  flowPaths,
  flowWeightings,
  predictionTypes,
  timestepDensities,
} from '../diffusion/index.js';
import { couplings } from './coupling.js';
import { scheduleNames } from './schedules.js';

const count = z.number().int().positive();
const share = z.number().min(0).max(1);

/** Everything that determines a training run: what run.json holds, and what `noisewright train` takes. */
export const trainConfig = z.strictObject({
  /** Class of the model: diffusers' DiTTransformer2DModel or UNet2DModel, or EncoderUNetModel, a classifier of x_t. */
  model: z.string(),
  /** Its config fields in camelCase; image size, channels and number of classes are filled in from the data. */
  modelConfig: z.record(z.string(), z.unknown()).default({}),
  /** A name or path that openDataset knows. */
  data: z.string(),
  /** Scale (and crop) pictures to size x size. */
  size: count.optional(),
  flip: z.boolean().default(false),
  skipCorrupt: z.boolean().default(false),
  /** An autoencoder's folder, or that of a pipeline with one: the model is trained on its latents. */
  vae: z.string().optional(),
  /** Total number of optimiser steps. */
  steps: count.default(2000),
  batch: count.default(64),
  /** Batches whose gradients are averaged before a step. */
  accumulate: count.default(1),
  seed: z.number().int().default(0),
  predict: z.enum(predictionTypes).default('epsilon'),
  betaSchedule: z.enum(betaSchedules).default('linear'),
  trainTimesteps: count.default(1000),
  zeroTerminalSnr: z.boolean().default(false),
  /** Learn the variance, too (improved DDPM); not for flow. */
  learnVariance: z.boolean().default(false),
  minSnrGamma: z.number().positive().optional(),
  /** The way from noise to data of a flow. */
  path: z.enum(flowPaths).default('cond-ot'),
  /** n of the path polynomial: alpha = t^n. */
  pathPower: z.number().positive().default(2),
  /** Width of the path schrodinger-bridge. */
  bridgeSigma: z.number().min(0).default(0.1),
  /** How a flow's noise is matched with the images of a batch. */
  coupling: z.enum(couplings).default('random'),
  timestepDensity: z.enum(timestepDensities).default('logit_normal'),
  flowWeighting: z.enum(flowWeightings).default('none'),
  conditionDropout: share.default(0.1),
  optimizer: z.enum(['adamw', 'sgd']).default('adamw'),
  learningRate: z.number().positive().default(3e-4),
  lrSchedule: z.enum(scheduleNames).default('constant_with_warmup'),
  /** For piecewise_constant: '1:1000,0.1:2000,0.01' is 1 before step 1000, 0.1 before step 2000, then 0.01. */
  lrStepRules: z.string().optional(),
  warmup: z.number().int().min(0).default(100),
  weightDecay: z.number().min(0).default(0.01),
  betas: z.tuple([share, share]).default([0.9, 0.999]),
  momentum: share.default(0.9),
  clipNorm: z.number().positive().optional(),
  emaDecay: share.default(0.999),
  checkpointEvery: count.default(500),
  /** How many checkpoints to keep. */
  keep: count.default(2),
  /** Steps between sample grids; 0 for none. */
  sampleEvery: z.number().int().min(0).default(0),
  logEvery: count.default(10),
  device: z.enum(['cpu', 'webgpu', 'cuda']).default('cpu'),
  threads: count.optional(),
});
export type TrainConfig = z.output<typeof trainConfig>;
export type TrainOptions = z.input<typeof trainConfig>;

/** Settings of every run, whatever it learns. */
export const learningFields = trainConfig.pick({
  steps: true,
  batch: true,
  accumulate: true,
  seed: true,
  optimizer: true,
  learningRate: true,
  lrSchedule: true,
  lrStepRules: true,
  warmup: true,
  weightDecay: true,
  betas: true,
  momentum: true,
  clipNorm: true,
  emaDecay: true,
  checkpointEvery: true,
  keep: true,
  logEvery: true,
  device: true,
  threads: true,
}).shape;

/** Which pictures a run learns from. */
export const pictureFields = trainConfig.pick({ data: true, size: true, flip: true, skipCorrupt: true }).shape;

/** What a sampler has to know of a run's path; undefined for straight lines. */
export const flowPathOf = ({ path, pathPower, bridgeSigma }: FlowPath): FlowPath | undefined =>
  path === 'cond-ot' ? undefined : { path, pathPower, bridgeSigma };
