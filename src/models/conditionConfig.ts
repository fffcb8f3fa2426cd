import { z } from 'zod';
import { activation, blockTypes, flag, positive } from './config.js';

/** One value for all stages, or one for each, from the full resolution down. */
const perStage = <S extends z.ZodType>(schema: S) => z.union([schema, z.array(schema).min(1)]);
/** Transformer blocks in each transformer of a stage; a list: of its first, second ... one. */
const depth = z.union([positive, z.array(positive).min(1)]);

/** The fields that diffusers' UNet2DConditionModel and ControlNetModel have in common. */
export const conditionFields = {
  inChannels: positive.default(4),
  flipSinToCos: z.boolean().default(true),
  freqShift: z.number().default(0),
  /** From the full resolution down; each stage but the last halves the image. */
  downBlockTypes: blockTypes(
    'CrossAttnDownBlock2D',
    'DownBlock2D',
    'AttnDownBlock2D',
    'ResnetDownsampleBlock2D',
    'SimpleCrossAttnDownBlock2D',
  ).default(['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D']),
  /** The first attention of each transformer is to the context, too. */
  onlyCrossAttention: perStage(z.boolean()).default(false),
  blockOutChannels: z.array(positive).min(1).default([320, 640, 1280, 1280]),
  downsamplePadding: z.number().int().min(0).default(1),
  midBlockScaleFactor: z.number().positive().default(1),
  actFn: activation.default('silu'),
  normNumGroups: positive.default(32),
  normEps: z.number().positive().default(1e-5),
  transformerLayersPerBlock: z.union([positive, z.array(depth).min(1)]).default(1),
  /** Width of the context that comes, where it is projected first. */
  encoderHidDim: positive.nullish(),
  /** The NUMBER of heads, whatever its name; the width of a head in the blocks without cross-attention and Simple ones. */
  attentionHeadDim: perStage(positive).default(8),
  useLinearProjection: flag,
  additionTimeEmbedDim: positive.nullish(),
  /** Number of classes. */
  numClassEmbeds: positive.nullish(),
  /** For 16-bit arithmetic; here attention is computed in float32 anyhow. */
  upcastAttention: flag,
  resnetTimeScaleShift: z.enum(['default', 'scale_shift']).default('default'),
  projectionClassEmbeddingsInputDim: positive.nullish(),
  additionEmbedTypeNumHeads: positive.default(64),
};

export const layersPerBlock = perStage(positive).default(2);
/** Width of the context. */
export const crossAttentionDim = perStage(positive).nullable().default(1280);

/** What a stage of either model is made of: its config, with those fields optional that only the UNet has. */
export interface StagesConfig extends Readonly<z.output<z.ZodObject<typeof conditionFields>>> {
  readonly layersPerBlock: number | readonly number[];
  readonly crossAttentionDim: number | readonly number[] | null;
  readonly midBlockType: string | null;
  readonly midBlockOnlyCrossAttention?: boolean | null;
  readonly reverseTransformerLayersPerBlock?: readonly (number | readonly number[])[] | null;
  readonly numAttentionHeads?: number | readonly number[] | null;
  readonly dropout?: number;
  readonly resnetSkipTimeAct?: boolean;
  readonly resnetOutScaleFactor?: number;
  readonly crossAttentionNorm?: 'layer_norm' | 'group_norm' | null;
}

/** One stage of the way down; its twin on the way up is the same but for the type and the transformers' depth. */
export interface Stage {
  readonly channels: number;
  readonly layers: number;
  /** In transformers. */
  readonly heads: number;
  /** Width of a head in other attention. */
  readonly headDim: number;
  readonly crossAttentionDim?: number;
  readonly onlyCrossAttention: boolean;
  readonly transformerLayers: number | readonly number[];
}

/** @throws RangeError when a list's length is not the number of stages. */
export function stagesOf(className: string, config: StagesConfig): Stage[] {
  const channels = config.blockOutChannels;
  const at = <T>(name: keyof StagesConfig, value: T | readonly T[], i: number): T => {
    if (!Array.isArray(value)) return value as T;
    if (value.length !== channels.length)
      throw new RangeError(`${className}: ${name} has ${value.length} entries for ${channels.length} blockOutChannels`);
    return value[i];
  };
  return channels.map((width, i) => ({
    channels: width,
    layers: at('layersPerBlock', config.layersPerBlock, i),
    headDim: at('attentionHeadDim', config.attentionHeadDim, i),
    heads: at('numAttentionHeads', config.numAttentionHeads ?? config.attentionHeadDim, i),
    crossAttentionDim: at('crossAttentionDim', config.crossAttentionDim, i) ?? undefined,
    onlyCrossAttention: at('onlyCrossAttention', config.onlyCrossAttention, i),
    transformerLayers: at<number | readonly number[]>('transformerLayersPerBlock', config.transformerLayersPerBlock, i),
  }));
}
