import { Transformer2DModel } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Stage, StagesConfig } from './conditionConfig.js';
import {
  ContextAttention2D,
  DownBlock,
  MidBlock,
  type ResnetSettings,
  SelfAttention2D,
  type SpatialMixer,
  UpBlock,
} from './unetBlocks.js';

/** Makes the stages of a UNet with a context from what diffusers calls them. */
export class StageFactory {
  private readonly resnet: ResnetSettings;

  constructor(
    private readonly className: string,
    private readonly config: StagesConfig,
    tembChannels: number,
    private readonly rng: Generator,
  ) {
    this.resnet = {
      tembChannels,
      groups: config.normNumGroups,
      eps: config.normEps,
      dropout: config.dropout,
      nonLinearity: config.actFn,
      timeEmbeddingNorm: config.resnetTimeScaleShift,
    };
  }

  /** @param skips channels of all skips so far, which the stage's are added to. */
  down(type: string, stage: Stage, inChannels: number, last: boolean, skips: number[]): DownBlock {
    const { channels: outChannels, layers } = stage;
    const { mixer, ending, resnet } = this.read(type, stage);
    skips.push(...Array.from({ length: last ? layers : layers + 1 }, () => outChannels));
    const { downsamplePadding } = this.config;
    const downsample = last ? undefined : ending;
    return new DownBlock({ inChannels, outChannels, layers, resnet, mixer, downsample, downsamplePadding }, this.rng);
  }

  /** @param skips loses those that the stage takes. */
  up(type: string, stage: Stage, inChannels: number, last: boolean, skips: number[]): UpBlock {
    const { mixer, ending, resnet } = this.read(type, stage);
    const skipChannels = skips.splice(-stage.layers - 1).reverse();
    const upsample = last ? undefined : ending;
    return new UpBlock({ inChannels, outChannels: stage.channels, skipChannels, resnet, mixer, upsample }, this.rng);
  }

  middle(type: string | null, lowest: Stage): MidBlock | undefined {
    if (type === null) return undefined;
    const resnet = { ...this.resnet, outputScaleFactor: this.config.midBlockScaleFactor };
    if (type === 'UNetMidBlock2D') return new MidBlock(lowest.channels, resnet, undefined, this.rng, 1);
    const onlyCrossAttention = this.config.midBlockOnlyCrossAttention ?? this.config.onlyCrossAttention === true;
    if (type === 'UNetMidBlock2DSimpleCrossAttn') {
      const settings = { ...resnet, skipTimeAct: this.config.resnetSkipTimeAct };
      return new MidBlock(
        lowest.channels,
        settings,
        this.contextAttention({ ...lowest, onlyCrossAttention }),
        this.rng,
      );
    }
    // diffusers keeps self-attention in the middle, whatever the config says.
    return new MidBlock(lowest.channels, resnet, this.transformer({ ...lowest, onlyCrossAttention: false }), this.rng);
  }

  /** What a stage's name says. */
  private read(type: string, stage: Stage) {
    const simple = type.startsWith('Simple');
    const ending = simple || type.startsWith('Resnet') ? ('resnet' as const) : ('conv' as const);
    const { resnetSkipTimeAct: skipTimeAct, resnetOutScaleFactor: outputScaleFactor } = this.config;
    const resnet = ending === 'resnet' ? { ...this.resnet, skipTimeAct, outputScaleFactor } : this.resnet;
    if (simple) return { ending, resnet, mixer: this.contextAttention(stage) };
    if (type.startsWith('CrossAttn')) return { ending, resnet, mixer: this.transformer(stage) };
    return { ending, resnet, mixer: type.startsWith('Attn') ? this.selfAttention(stage) : undefined };
  }

  private transformer(stage: Stage) {
    const { heads, onlyCrossAttention, transformerLayers } = stage;
    const crossAttentionDim = this.contextWidth(stage);
    const { normNumGroups, useLinearProjection } = this.config;
    return (inChannels: number, layer: number): SpatialMixer => {
      const attentionHeadDim = Math.floor(inChannels / heads);
      if (attentionHeadDim === 0)
        throw new RangeError(`${this.className}: attentionHeadDim ${heads} is more heads than ${inChannels} channels`);
      const shape = { numAttentionHeads: heads, attentionHeadDim, inChannels, crossAttentionDim, normNumGroups };
      const numLayers = typeof transformerLayers === 'number' ? transformerLayers : transformerLayers[layer];
      if (numLayers === undefined)
        throw new RangeError(
          `${this.className}: transformerLayersPerBlock [${transformerLayers}] has no entry ${layer} for a stage of ${inChannels} channels`,
        );
      return new Transformer2DModel({ ...shape, numLayers, useLinearProjection, onlyCrossAttention }, this.rng);
    };
  }

  private contextAttention(stage: Stage) {
    const addedKvProjDim = this.contextWidth(stage);
    const { normNumGroups, crossAttentionNorm } = this.config;
    const { headDim: dimHead, onlyCrossAttention } = stage;
    return (channels: number): SpatialMixer =>
      new ContextAttention2D(
        {
          queryDim: channels,
          heads: this.headsOf(channels, dimHead),
          dimHead,
          bias: true,
          addedKvProjDim,
          normNumGroups,
          onlyCrossAttention,
          crossAttentionNorm: crossAttentionNorm ?? undefined,
        },
        this.rng,
      );
  }

  private selfAttention({ headDim: dimHead }: Stage) {
    const { normNumGroups, normEps: eps } = this.config;
    return (queryDim: number): SpatialMixer => {
      const heads = this.headsOf(queryDim, dimHead);
      const settings = { queryDim, heads, dimHead, bias: true, eps, normNumGroups, residualConnection: true };
      return new SelfAttention2D(settings, this.rng);
    };
  }

  private headsOf(channels: number, dimHead: number): number {
    if (dimHead <= channels) return Math.floor(channels / dimHead);
    throw new RangeError(`${this.className}: attentionHeadDim ${dimHead} is more than ${channels} channels`);
  }

  private contextWidth({ crossAttentionDim }: Stage): number {
    if (crossAttentionDim) return crossAttentionDim;
    throw new RangeError(`${this.className}: blocks with cross-attention need crossAttentionDim`);
  }
}
