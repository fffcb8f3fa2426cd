import { z } from 'zod';
import { parseFields } from '../io/index.js';
import { ControlNetConditioningEmbedding, Conv2d, zeroed } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { conditionFields, stagesOf } from './conditionConfig.js';
import { ConditionEncoder, type Conditions } from './conditionEncoder.js';
import { StageFactory } from './conditionStages.js';
import { modelConfig, positive } from './config.js';
import type { UNet2DCondition } from './unet2dCondition.js';
import type { DownBlock, MidBlock } from './unetBlocks.js';

/** The fields of diffusers' ControlNetModel. */
export const controlNetConfig = modelConfig({
  ...conditionFields,
  /** Of the hint. */
  conditioningChannels: positive.default(3),
  midBlockType: z.enum(['UNetMidBlock2DCrossAttn', 'UNetMidBlock2D']).default('UNetMidBlock2DCrossAttn'),
  layersPerBlock: positive.default(2),
  crossAttentionDim: positive.default(1280),
  encoderHidDimType: z.enum(['text_proj', 'text_image_proj']).nullish(),
  /** In transformers; default: what `attentionHeadDim` says. */
  numAttentionHeads: z.union([positive, z.array(positive).min(1)]).nullish(),
  classEmbedType: z.enum(['timestep', 'identity', 'projection']).nullish(),
  additionEmbedType: z.enum(['text', 'text_image', 'text_time']).nullish(),
  /** Order of the hint's channels as the net was trained; hints always come as rgb. */
  controlnetConditioningChannelOrder: z.enum(['rgb', 'bgr']).default('rgb'),
  /** Of the hint's convolutions: each after the first halves it. */
  conditioningEmbeddingOutChannels: z.array(positive).min(1).default([16, 32, 96, 256]),
  /** Average the residuals over all positions. */
  globalPoolConditions: z.boolean().default(false),
});
export type ControlNetConfig = z.output<typeof controlNetConfig>;
export type ControlNetOptions = z.input<typeof controlNetConfig>;

/** What is added to a UNet: `downBlockAdditionalResiduals` and `midBlockAdditionalResidual`. */
export interface ControlNetOutput {
  readonly down: readonly Tensor[];
  readonly mid: Tensor;
}

export interface ControlNetUse {
  /** Multiplies all that the net says; default 1. */
  readonly conditioningScale?: Tensor | number;
  /** Guess without a prompt: early layers say a tenth of what the middle does. */
  readonly guess?: boolean;
}

/**
 * "Adding Conditional Control to Text-to-Image Diffusion Models" (Zhang et al. 2023): a copy of a UNet's way down that
 * sees a hint, and speaks to the UNet through convolutions that start at zero. Laid out as diffusers' ControlNetModel.
 */
export class ControlNet extends ConditionEncoder {
  static readonly className = 'ControlNetModel';
  readonly controlnetCondEmbedding: ControlNetConditioningEmbedding;
  readonly downBlocks: readonly DownBlock[];
  readonly controlnetDownBlocks: readonly Conv2d[];
  readonly midBlock: MidBlock;
  readonly controlnetMidBlock: Conv2d;
  readonly config: ControlNetConfig;

  /**
   * @param rng initial weights are drawn from it; the convolutions to the UNet and the hint's last one are zero.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: ControlNetOptions, rng: Generator) {
    const config = parseFields(ControlNet.className, controlNetConfig, options);
    super(ControlNet.className, { ...config, classEmbedActFn: 'silu' }, rng);
    this.config = config;
    const { blockOutChannels: channels, downBlockTypes: types } = config;
    if (channels.length !== types.length)
      throw new RangeError(
        `ControlNetModel: ${channels.length} blockOutChannels and ${types.length} downBlockTypes, expected as many of each`,
      );
    this.controlnetCondEmbedding = new ControlNetConditioningEmbedding(
      {
        conditioningEmbeddingChannels: channels[0],
        conditioningChannels: config.conditioningChannels,
        blockOutChannels: config.conditioningEmbeddingOutChannels,
      },
      rng,
    );
    const stages = stagesOf(ControlNet.className, config);
    const factory = new StageFactory(ControlNet.className, config, this.tembChannels, rng);
    const lowest = stages.length - 1;
    const skips = [channels[0]];
    this.downBlocks = stages.map((stage, i) =>
      factory.down(types[i], stage, stages[Math.max(0, i - 1)].channels, i === lowest, skips),
    );
    const zeroConv = (width: number) => zeroed(new Conv2d(width, width, 1, {}, rng));
    this.controlnetDownBlocks = skips.map(zeroConv);
    this.midBlock = factory.middle(config.midBlockType, stages[lowest])!;
    this.controlnetMidBlock = zeroConv(channels[lowest]);
  }

  /**
   * A ControlNet that starts as a UNet's way down: as trainings begin.
   * @param options what the UNet does not say: the hint's channels, their order and convolutions.
   * @throws TypeError for a UNet with blocks that a ControlNet cannot have.
   */
  static fromUNet(
    unet: UNet2DCondition,
    options: Pick<
      ControlNetOptions,
      'conditioningChannels' | 'controlnetConditioningChannelOrder' | 'conditioningEmbeddingOutChannels'
    >,
    rng: Generator,
  ): ControlNet {
    const shared = Object.entries(unet.config).filter(([name]) => Object.hasOwn(controlNetConfig.shape, name));
    const config = parseFields(ControlNet.className, controlNetConfig, { ...Object.fromEntries(shared), ...options });
    const net = new ControlNet(config, rng);
    const weights = unet.namedVariables();
    for (const [name, own] of net.namedVariables()) {
      const theirs = weights.get(name);
      if (theirs) own.set({ ...theirs.value, data: theirs.value.data.slice() });
    }
    return net;
  }

  /**
   * @param x noisy latents [N, inChannels, H, W], the UNet's own.
   * @param timestep [], [1] or [N], integers or floats.
   * @param hint [N or 1, conditioningChannels, 8 H, 8 W] in [0, 1] (the factor is 2 per step of its convolutions).
   * @param conditions the UNet's; `timestepCond` is not looked at.
   * @throws Error when a condition is missing, RangeError when the hint's size does not fit.
   */
  forward(
    x: Tensor,
    timestep: Tensor,
    hint: Tensor,
    conditions: Conditions,
    { conditioningScale = 1, guess = false }: ControlNetUse = {},
  ): ControlNetOutput {
    const { controlnetConditioningChannelOrder: order, additionEmbedType, globalPoolConditions } = this.config;
    const time = this.embedTime(x.shape[0], timestep, { ...conditions, timestepCond: undefined });
    // diffusers makes the projections of Kandinsky's conditions but does not use them.
    const added = additionEmbedType === 'text_image' ? undefined : this.embedAdded(conditions);
    const temb = added ? time.add(added) : time;
    const context = this.context(conditions, false);

    const seen = this.controlnetCondEmbedding.forward(order === 'bgr' ? hint.flip(1) : hint);
    const [height, width] = x.shape.slice(2);
    if (seen.shape[2] !== height || seen.shape[3] !== width)
      throw new RangeError(
        `ControlNetModel: a hint [${hint.shape}] comes down to ${seen.shape[2]}x${seen.shape[3]}, but the latents are ${height}x${width}`,
      );
    let y = this.convIn.forward(x).add(seen);
    const skips = [y];
    for (const block of this.downBlocks) {
      const down = block.forward(y, temb, context);
      y = down.x;
      skips.push(...down.skips);
    }
    const residuals = skips.map((skip, i) => this.controlnetDownBlocks[i].forward(skip));
    residuals.push(this.controlnetMidBlock.forward(this.midBlock.forward(y, temb, context)));

    const deepest = residuals.length - 1;
    const spoken = residuals.map((residual, i) => {
      const scaled = residual.mul(conditioningScale);
      if (globalPoolConditions) return scaled.mean([2, 3], true);
      return guess ? scaled.mul(10 ** (i / deepest - 1)) : scaled;
    });
    return { down: spoken.slice(0, -1), mid: spoken[deepest] };
  }
}

/** What several nets say of the same latents, added up: diffusers' MultiControlNetModel. @throws RangeError for none. */
export function addControls(outputs: readonly ControlNetOutput[]): ControlNetOutput {
  if (outputs.length === 0) throw new RangeError('ControlNet: no outputs to add');
  return outputs.reduce((sum, { down, mid }) => ({
    down: sum.down.map((residual, i) => residual.add(down[i])),
    mid: sum.mid.add(mid),
  }));
}
