import { activate, Conv2d, firDownsample2d, firUpsample2d, GroupNorm, Module, ResnetBlock2D } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, type Tensor } from '../tensor/index.js';
import type { ResnetSettings, SpatialMixer } from './unetBlocks.js';

/** Groups of a norm over some channels where the config does not say. */
export const defaultGroups = (channels: number): number => Math.min(Math.floor(channels / 4), 32);

interface SkipStageConfig {
  readonly inChannels: number;
  readonly outChannels: number;
  /** Its groups are chosen by the channels. */
  readonly resnet: ResnetSettings;
  readonly mixer?: (channels: number) => SpatialMixer;
  /** The lowest stage on the way down, and the last on the way up, keep the size. */
  readonly resample: boolean;
}

/**
 * A stage on the way down of NCSN++ (Song et al. 2021), which sees the image itself, too: diffusers' SkipDownBlock2D
 * and AttnSkipDownBlock2D.
 */
export class SkipDownBlock extends Module {
  readonly attentions?: readonly SpatialMixer[];
  readonly resnets: readonly ResnetBlock2D[];
  readonly resnetDown?: ResnetBlock2D;
  readonly skipConv?: Conv2d;

  constructor(config: SkipStageConfig & { readonly layers: number }, rng: Generator) {
    super();
    const { outChannels, mixer, resample } = config;
    const layers = Array.from({ length: config.layers }, (_, i) => {
      const inChannels = i === 0 ? config.inChannels : outChannels;
      const resnet = residual(config, inChannels, defaultGroups(inChannels), rng);
      return { resnet, attention: mixer?.(outChannels) };
    });
    this.resnets = layers.map((layer) => layer.resnet);
    if (mixer) this.attentions = layers.map((layer) => layer.attention!);
    if (!resample) return;
    this.resnetDown = resampling(config, 'down', rng);
    this.skipConv = new Conv2d(3, outChannels, 1, {}, rng);
  }

  /** @param pyramid the image [N, 3, H, W] at this stage's size. @returns it at the next one's, as well. */
  forward(x: Tensor, temb: Tensor, pyramid: Tensor): { x: Tensor; skips: Tensor[]; pyramid: Tensor } {
    const skips: Tensor[] = [];
    let y = x;
    for (const [i, resnet] of this.resnets.entries()) {
      y = resnet.forward(y, temb);
      y = this.attentions?.[i].forward(y) ?? y;
      skips.push(y);
    }
    if (!this.resnetDown) return { x: y, skips, pyramid };
    const smaller = firDownsample2d(pyramid);
    y = this.skipConv!.forward(smaller).add(this.resnetDown.forward(y, temb));
    return { x: y, skips: [...skips, y], pyramid: smaller };
  }
}

/** A stage on the way up, which adds to the image itself: diffusers' SkipUpBlock2D and AttnSkipUpBlock2D. */
export class SkipUpBlock extends Module {
  readonly attentions?: readonly [SpatialMixer];
  readonly resnets: readonly ResnetBlock2D[];
  readonly resnetUp?: ResnetBlock2D;
  readonly skipConv?: Conv2d;
  readonly skipNorm?: GroupNorm;

  /** @param config `skipChannels`: of the skip that each residual block takes. */
  constructor(config: SkipStageConfig & { readonly skipChannels: readonly number[] }, rng: Generator) {
    super();
    const { outChannels, mixer, resample } = config;
    this.resnets = config.skipChannels.map((skip, i) => {
      const before = i === 0 ? config.inChannels : outChannels;
      // diffusers leaves out the brackets where there is attention.
      const groups = mixer ? Math.min(before + Math.floor(skip / 4), 32) : defaultGroups(before + skip);
      return residual(config, before + skip, groups, rng);
    });
    if (mixer) this.attentions = [mixer(outChannels)];
    if (!resample) return;
    this.resnetUp = resampling(config, 'up', rng);
    this.skipConv = new Conv2d(outChannels, 3, 3, { padding: 1 }, rng);
    this.skipNorm = new GroupNorm(defaultGroups(outChannels), outChannels, { eps: config.resnet.eps });
  }

  /** @param skips loses its last ones. @param pyramid what the stages before made of the image, at half this size. */
  forward(x: Tensor, skips: Tensor[], temb: Tensor, pyramid?: Tensor): { x: Tensor; pyramid?: Tensor } {
    let y = x;
    for (const resnet of this.resnets) y = resnet.forward(concat([y, skips.pop()!], 1), temb);
    y = this.attentions?.[0].forward(y) ?? y;
    const larger = pyramid && firUpsample2d(pyramid);
    if (!this.resnetUp) return { x: y, pyramid: larger };
    const image = this.skipConv!.forward(activate('silu', this.skipNorm!.forward(y)));
    return { x: this.resnetUp.forward(y, temb), pyramid: larger?.add(image) ?? image };
  }
}

const residual = ({ resnet, outChannels }: SkipStageConfig, inChannels: number, groups: number, rng: Generator) =>
  new ResnetBlock2D({ ...resnet, inChannels, outChannels, groups, groupsOut: defaultGroups(outChannels) }, rng);

const resampling = ({ resnet, outChannels }: SkipStageConfig, direction: 'up' | 'down', rng: Generator) =>
  new ResnetBlock2D(
    {
      ...resnet,
      inChannels: outChannels,
      groups: defaultGroups(outChannels),
      useInShortcut: true,
      kernel: 'fir',
      [direction]: true,
    },
    rng,
  );
