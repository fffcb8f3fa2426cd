import { z } from 'zod';
import { parseFields } from '../io/index.js';
import { activate, Conv2d, GroupNorm } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, type Tensor } from '../tensor/index.js';
import { conditionFields, crossAttentionDim, layersPerBlock, type Stage, stagesOf } from './conditionConfig.js';
import { ConditionEncoder, type Conditions } from './conditionEncoder.js';
import { StageFactory } from './conditionStages.js';
import { activation, blockTypes, flag, modelConfig, positive } from './config.js';
import type { DownBlock, MidBlock, UpBlock } from './unetBlocks.js';

const kernel = z.number().int().positive().default(3);

/** The fields of diffusers' UNet2DConditionModel. */
export const unet2dConditionConfig = modelConfig({
  ...conditionFields,
  sampleSize: z.union([positive, z.tuple([positive, positive])]).nullish(),
  outChannels: positive.default(4),
  /** Images come in [0, 1] and are brought to [-1, 1]. */
  centerInputSample: flag,
  midBlockType: z
    .enum(['UNetMidBlock2DCrossAttn', 'UNetMidBlock2DSimpleCrossAttn', 'UNetMidBlock2D'])
    .nullable()
    .default('UNetMidBlock2DCrossAttn'),
  upBlockTypes: blockTypes(
    'UpBlock2D',
    'CrossAttnUpBlock2D',
    'AttnUpBlock2D',
    'ResnetUpsampleBlock2D',
    'SimpleCrossAttnUpBlock2D',
  ).default(['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D']),
  layersPerBlock,
  dropout: z.number().min(0).max(1).default(0),
  crossAttentionDim,
  /** Of the way up, where it is not the way down's mirror image. */
  reverseTransformerLayersPerBlock: z.array(z.union([positive, z.array(positive).min(1)])).nullish(),
  encoderHidDimType: z.enum(['text_proj', 'text_image_proj', 'image_proj']).nullish(),
  /** diffusers refuses it: see `attentionHeadDim`. */
  numAttentionHeads: z.null().optional(),
  /** diffusers has the field, but its blocks no longer take the masks that its model hands them. */
  dualCrossAttention: z.literal(false).nullish(),
  classEmbedType: z.enum(['timestep', 'identity', 'projection', 'simple_projection']).nullish(),
  /** Vectors added to the timestep's: of text (`text`), of Stable Diffusion XL (`text_time`), of Kandinsky (the others). */
  additionEmbedType: z.enum(['text', 'text_image', 'text_time', 'image', 'image_hint']).nullish(),
  /** In residual blocks of Resnet* and Simple* stages: the timestep's vector comes activated. */
  resnetSkipTimeAct: flag,
  /** In the same: divides the sum of both ways. */
  resnetOutScaleFactor: z.number().positive().default(1),
  timeEmbeddingType: z.enum(['positional', 'fourier']).default('positional'),
  /** Default 4 * blockOutChannels[0], or twice for Fourier embeddings. */
  timeEmbeddingDim: positive.nullish(),
  /** Of the sum of all that describes timestep and conditions. */
  timeEmbeddingActFn: activation.nullish(),
  timestepPostAct: activation.nullish(),
  /** Width of `timestepCond`. */
  timeCondProjDim: positive.nullish(),
  convInKernel: kernel,
  convOutKernel: kernel,
  attentionType: z.literal('default').default('default'),
  /** Put class and timestep side by side instead of adding them. */
  classEmbeddingsConcat: flag,
  /** In Simple* middles; default: what `onlyCrossAttention` says for all. */
  midBlockOnlyCrossAttention: z.boolean().nullish(),
  /** Of the context, in Simple* stages. */
  crossAttentionNorm: z.enum(['layer_norm', 'group_norm']).nullish(),
});
export type UNet2DConditionConfig = z.output<typeof unet2dConditionConfig>;
export type UNet2DConditionOptions = z.input<typeof unet2dConditionConfig>;

export type UNet2DConditions = Conditions & {
  /** A ControlNet's, added to the skips: one for each, from the first on. */
  readonly downBlockAdditionalResiduals?: readonly Tensor[];
  /** A ControlNet's, added to the middle's result. */
  readonly midBlockAdditionalResidual?: Tensor;
  /** A T2I-Adapter's, one for each stage on the way down; a further one of its shape goes to the middle. */
  readonly downIntrablockAdditionalResiduals?: readonly Tensor[];
};

/**
 * The UNet of latent diffusion ("High-Resolution Image Synthesis with Latent Diffusion Models", Rombach et al. 2022):
 * Stable Diffusion 1, 2 and XL, DeepFloyd IF, Kandinsky and latent consistency models. Laid out as diffusers'
 * UNet2DConditionModel: residual blocks and transformers that attend to a text, down and up, with skips between.
 */
export class UNet2DCondition extends ConditionEncoder {
  static readonly className = 'UNet2DConditionModel';
  readonly downBlocks: readonly DownBlock[];
  readonly midBlock?: MidBlock;
  readonly upBlocks: readonly UpBlock[];
  readonly convNormOut: GroupNorm;
  readonly convOut: Conv2d;
  readonly config: UNet2DConditionConfig;

  /**
   * @param rng initial weights are drawn from it, as PyTorch draws them.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: UNet2DConditionOptions, rng: Generator) {
    const config = parseFields(UNet2DCondition.className, unet2dConditionConfig, options);
    super(UNet2DCondition.className, config, rng);
    this.config = config;
    const stages = createStages(config);
    const [first, lowest] = [config.blockOutChannels[0], stages.length - 1];
    const factory = new StageFactory(UNet2DCondition.className, config, this.tembChannels, rng);
    const skips = [first];
    this.downBlocks = stages.map((stage, i) =>
      factory.down(config.downBlockTypes[i], stage, stages[Math.max(0, i - 1)].channels, i === lowest, skips),
    );
    this.midBlock = factory.middle(config.midBlockType, stages[lowest]);
    const reversed = upStages(stages, config);
    this.upBlocks = reversed.map((stage, i) =>
      factory.up(config.upBlockTypes[i], stage, reversed[Math.max(0, i - 1)].channels, i === lowest, skips),
    );
    this.convNormOut = new GroupNorm(config.normNumGroups, first, { eps: config.normEps });
    const { convOutKernel: kernel } = config;
    this.convOut = new Conv2d(first, config.outChannels, kernel, { padding: (kernel - 1) >> 1 }, rng);
  }

  get inChannels(): number {
    return this.config.inChannels;
  }
  get outChannels(): number {
    return this.config.outChannels;
  }

  /**
   * @param x noisy images or latents [N, inChannels, H, W] of any size (what a Resnet* or Simple* block doubles must have been halved exactly).
   * @param timestep [], [1] or [N], integers or floats.
   * @param conditions the text, and whatever else the config asks for.
   * @returns [N, outChannels, H, W].
   * @throws Error when a condition is missing, RangeError when one is of another shape.
   */
  forward(x: Tensor, timestep: Tensor, conditions: UNet2DConditions): Tensor {
    const { config } = this;
    const time = this.embedTime(x.shape[0], timestep, conditions);
    const added = this.embedAdded(conditions);
    const sum = added ? time.add(added) : time;
    const temb = config.timeEmbeddingActFn ? activate(config.timeEmbeddingActFn, sum) : sum;
    const context = this.context(conditions);

    const image = config.centerInputSample ? x.mul(2).sub(1) : x;
    const hint = this.embedHint(conditions);
    let y = this.convIn.forward(hint ? concat([image, hint], 1) : image);
    let skips = [y];
    const adapted = [...(conditions.downIntrablockAdditionalResiduals ?? [])];
    for (const [i, block] of this.downBlocks.entries()) {
      const inside = config.downBlockTypes[i] === 'CrossAttnDownBlock2D';
      const down = block.forward(y, temb, context, inside ? adapted.shift() : undefined);
      y = down.x;
      const after = inside ? undefined : adapted.shift();
      // diffusers adds in place, so the last skip has it, too.
      if (after) y = down.skips[down.skips.length - 1] = y.add(after);
      skips.push(...down.skips);
    }
    skips = withResiduals(skips, conditions);
    y = this.midBlock?.forward(y, temb, context) ?? y;
    if (this.midBlock && adapted[0] && `${adapted[0].shape}` === `${y.shape}`) y = y.add(adapted[0]);
    if (conditions.midBlockAdditionalResidual) y = y.add(conditions.midBlockAdditionalResidual);
    for (const block of this.upBlocks) y = block.forward(y, skips, temb, context);
    return this.convOut.forward(activate(config.actFn, this.convNormOut.forward(y)));
  }
}

/** @param skips of the way down; @returns them with a ControlNet's residuals added. */
function withResiduals(skips: Tensor[], conditions: UNet2DConditions): Tensor[] {
  const { downBlockAdditionalResiduals: residuals, midBlockAdditionalResidual: ofMiddle } = conditions;
  if (!residuals && !ofMiddle) return skips;
  if (!residuals || !ofMiddle || residuals.length !== skips.length)
    throw new RangeError(
      `${UNet2DCondition.className}: ${residuals?.length ?? 'no'} residuals for ${skips.length} skips and ${ofMiddle ? 'one' : 'none'} for the middle, expected one for each`,
    );
  return skips.map((skip, i) => skip.add(residuals[i]));
}

function createStages(config: UNet2DConditionConfig): Stage[] {
  const counts = [config.blockOutChannels, config.downBlockTypes, config.upBlockTypes].map((list) => list.length);
  if (new Set(counts).size > 1)
    throw new RangeError(
      `${UNet2DCondition.className}: ${counts[0]} blockOutChannels, ${counts[1]} downBlockTypes and ${counts[2]} upBlockTypes, expected as many of each`,
    );
  return stagesOf(UNet2DCondition.className, config);
}

/** From the lowest resolution up. */
function upStages(stages: readonly Stage[], config: UNet2DConditionConfig): Stage[] {
  const depths = config.reverseTransformerLayersPerBlock;
  if (!depths && stages.some(({ transformerLayers }) => typeof transformerLayers !== 'number'))
    throw new RangeError(
      `${UNet2DCondition.className}: lists in transformerLayersPerBlock need reverseTransformerLayersPerBlock`,
    );
  if (depths && depths.length !== stages.length)
    throw new RangeError(
      `${UNet2DCondition.className}: reverseTransformerLayersPerBlock has ${depths.length} entries for ${stages.length} blockOutChannels`,
    );
  return [...stages].reverse().map((stage, i) => ({
    ...stage,
    transformerLayers: depths?.[i] ?? stage.transformerLayers,
    // diffusers turns round every list but this one.
    headDim: stages[i].headDim,
  }));
}
