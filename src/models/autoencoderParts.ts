import { activate, Conv2d, GroupNorm, Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { DownBlock, MidBlock, type ResnetSettings, SelfAttention2D, UpBlock } from './unetBlocks.js';

const eps = 1e-6;

export interface AutoencoderPartConfig {
  /** From the full resolution down. */
  readonly blockOutChannels: readonly number[];
  readonly layersPerBlock: number;
  readonly actFn: ResnetSettings['nonLinearity'];
  readonly normNumGroups: number;
  /** Attention in the middle. */
  readonly midBlockAddAttention: boolean;
}

/** Residual blocks that see no timestep, and attention of one head. */
const parts = ({ actFn, normNumGroups: groups }: AutoencoderPartConfig, rng: Generator) => ({
  resnet: { tembChannels: null, groups, eps, nonLinearity: actFn },
  attention: (queryDim: number) =>
    new SelfAttention2D(
      { queryDim, heads: 1, dimHead: queryDim, bias: true, eps, normNumGroups: groups, residualConnection: true },
      rng,
    ),
});

/** Images [N, inChannels, H, W] to [N, outChannels, h, w]: every stage but the last halves them. */
export class Encoder extends Module {
  readonly convIn: Conv2d;
  readonly downBlocks: readonly DownBlock[];
  readonly midBlock: MidBlock;
  readonly convNormOut: GroupNorm;
  readonly convOut: Conv2d;

  constructor(
    inChannels: number,
    outChannels: number,
    types: readonly string[],
    config: AutoencoderPartConfig,
    rng: Generator,
  ) {
    super();
    const { blockOutChannels: channels, layersPerBlock: layers, normNumGroups } = config;
    const { resnet, attention } = parts(config, rng);
    const lowest = channels.length - 1;
    this.convIn = new Conv2d(inChannels, channels[0], 3, { padding: 1 }, rng);
    this.downBlocks = types.map(
      (type, i) =>
        new DownBlock(
          {
            inChannels: channels[Math.max(0, i - 1)],
            outChannels: channels[i],
            layers,
            resnet,
            mixer: type.startsWith('Attn') ? attention : undefined,
            downsample: i < lowest ? 'conv' : undefined,
            downsamplePadding: 0,
          },
          rng,
        ),
    );
    this.midBlock = new MidBlock(channels[lowest], resnet, config.midBlockAddAttention ? attention : undefined, rng);
    this.convNormOut = new GroupNorm(normNumGroups, channels[lowest], { eps });
    this.convOut = new Conv2d(channels[lowest], outChannels, 3, { padding: 1 }, rng);
  }

  forward(images: Tensor): Tensor {
    const down = this.downBlocks.reduce((x, block) => block.forward(x).x, this.convIn.forward(images));
    return this.convOut.forward(activate('silu', this.convNormOut.forward(this.midBlock.forward(down))));
  }
}

/** Latents [N, inChannels, h, w] to images [N, outChannels, H, W]: the encoder's mirror image, one layer deeper. */
export class Decoder extends Module {
  readonly convIn: Conv2d;
  readonly midBlock: MidBlock;
  readonly upBlocks: readonly UpBlock[];
  readonly convNormOut: GroupNorm;
  readonly convOut: Conv2d;

  constructor(
    inChannels: number,
    outChannels: number,
    types: readonly string[],
    config: AutoencoderPartConfig,
    rng: Generator,
  ) {
    super();
    const { layersPerBlock, normNumGroups } = config;
    const channels = [...config.blockOutChannels].reverse();
    const { resnet, attention } = parts(config, rng);
    this.convIn = new Conv2d(inChannels, channels[0], 3, { padding: 1 }, rng);
    this.midBlock = new MidBlock(channels[0], resnet, config.midBlockAddAttention ? attention : undefined, rng);
    this.upBlocks = types.map(
      (type, i) =>
        new UpBlock(
          {
            inChannels: channels[Math.max(0, i - 1)],
            outChannels: channels[i],
            skipChannels: Array.from({ length: layersPerBlock + 1 }, () => 0),
            resnet,
            mixer: type.startsWith('Attn') ? attention : undefined,
            upsample: i < channels.length - 1 ? 'conv' : undefined,
          },
          rng,
        ),
    );
    const full = channels[channels.length - 1];
    this.convNormOut = new GroupNorm(normNumGroups, full, { eps });
    this.convOut = new Conv2d(full, outChannels, 3, { padding: 1 }, rng);
  }

  forward(latents: Tensor): Tensor {
    const lowest = this.midBlock.forward(this.convIn.forward(latents));
    const up = this.upBlocks.reduce((x, block) => block.forward(x), lowest);
    return this.convOut.forward(activate('silu', this.convNormOut.forward(up)));
  }
}
