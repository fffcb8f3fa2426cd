import {
  type AttentionInputs,
  Downsample2D,
  Module,
  ResnetBlock2D,
  type ResnetBlock2DConfig,
  Upsample2D,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, type Tensor } from '../tensor/index.js';

/** What all residual blocks of a stage have in common. */
export type ResnetSettings = Omit<ResnetBlock2DConfig, 'inChannels' | 'outChannels' | 'up' | 'down'>;

/** Mixes the positions of an image [N, C, H, W] after a residual block: self-attention, or a transformer with a context. */
export interface SpatialMixer extends Module {
  forward(x: Tensor, context?: AttentionInputs): Tensor;
}

interface StageConfig {
  /** Channels that come from the stage before. */
  readonly inChannels: number;
  readonly outChannels: number;
  readonly resnet: ResnetSettings;
  /** Makes what follows each residual block, if anything does. */
  readonly mixer?: (channels: number) => SpatialMixer;
}

export interface DownBlockConfig extends StageConfig {
  /** Number of residual blocks. */
  readonly layers: number;
  /** How the stage ends: by a strided convolution, or a residual block that averages. */
  readonly downsample?: 'conv' | 'resnet';
  /** Of that convolution; 0 pads the right and bottom edge only. */
  readonly downsamplePadding: number;
}

/** A stage on the way down: diffusers' DownBlock2D, ResnetDownsampleBlock2D and AttnDownBlock2D. */
export class DownBlock extends Module {
  readonly attentions?: readonly SpatialMixer[];
  readonly resnets: readonly ResnetBlock2D[];
  readonly downsamplers?: readonly [Downsample2D | ResnetBlock2D];

  constructor(config: DownBlockConfig, rng: Generator) {
    super();
    const { inChannels, outChannels, layers, resnet, downsample } = config;
    const inputs = Array.from({ length: layers }, (_, i) => (i === 0 ? inChannels : outChannels));
    [this.resnets, this.attentions] = layersOf(inputs, config, rng);
    if (downsample === 'conv') {
      const strided = { channels: outChannels, useConv: true, padding: config.downsamplePadding };
      this.downsamplers = [new Downsample2D(strided, rng)];
    } else if (downsample === 'resnet')
      this.downsamplers = [new ResnetBlock2D({ ...resnet, inChannels: outChannels, down: true }, rng)];
  }

  /** @returns the image for the next stage, and what each layer leaves for the way up. */
  forward(x: Tensor, temb: Tensor, context?: AttentionInputs): { x: Tensor; skips: Tensor[] } {
    const skips: Tensor[] = [];
    let y = x;
    for (const [i, resnet] of this.resnets.entries()) {
      y = resnet.forward(y, temb);
      y = this.attentions?.[i].forward(y, context) ?? y;
      skips.push(y);
    }
    for (const layer of this.downsamplers ?? []) {
      y = layer instanceof ResnetBlock2D ? layer.forward(y, temb) : layer.forward(y);
      skips.push(y);
    }
    return { x: y, skips };
  }
}

export interface UpBlockConfig extends StageConfig {
  /** Channels of the skip that each residual block takes. */
  readonly skipChannels: readonly number[];
  /** How the stage ends: by a convolution of the doubled image, or a residual block that doubles it. */
  readonly upsample?: 'conv' | 'resnet';
}

/** A stage on the way up: diffusers' UpBlock2D, ResnetUpsampleBlock2D and AttnUpBlock2D. */
export class UpBlock extends Module {
  readonly attentions?: readonly SpatialMixer[];
  readonly resnets: readonly ResnetBlock2D[];
  readonly upsamplers?: readonly [Upsample2D | ResnetBlock2D];

  constructor(config: UpBlockConfig, rng: Generator) {
    super();
    const { inChannels, outChannels, skipChannels, resnet, upsample } = config;
    const inputs = skipChannels.map((channels, i) => channels + (i === 0 ? inChannels : outChannels));
    [this.resnets, this.attentions] = layersOf(inputs, config, rng);
    if (upsample === 'conv') this.upsamplers = [new Upsample2D({ channels: outChannels, useConv: true }, rng)];
    else if (upsample === 'resnet')
      this.upsamplers = [new ResnetBlock2D({ ...resnet, inChannels: outChannels, up: true }, rng)];
  }

  /** @param skips left by the way down: takes its own off the end, and a convolution grows to the size of the next. */
  forward(x: Tensor, skips: Tensor[], temb: Tensor, context?: AttentionInputs): Tensor {
    let y = x;
    for (const [i, resnet] of this.resnets.entries()) {
      y = resnet.forward(concat([y, skips.pop()!], 1), temb);
      y = this.attentions?.[i].forward(y, context) ?? y;
    }
    for (const layer of this.upsamplers ?? []) {
      const [, , height, width] = skips[skips.length - 1].shape;
      y = layer instanceof ResnetBlock2D ? layer.forward(y, temb) : layer.forward(y, [height, width]);
    }
    return y;
  }
}

/** A residual block for each input width, and what follows it, drawn from `rng` in the order of the computation. */
function layersOf(
  inputs: readonly number[],
  { outChannels, resnet, mixer }: StageConfig,
  rng: Generator,
): [ResnetBlock2D[], SpatialMixer[] | undefined] {
  const layers = inputs.map((inChannels) => ({
    resnet: new ResnetBlock2D({ ...resnet, inChannels, outChannels }, rng),
    mixer: mixer?.(outChannels),
  }));
  return [layers.map((layer) => layer.resnet), mixer && layers.map((layer) => layer.mixer!)];
}

/** The lowest stage: two residual blocks around a mixer (diffusers' UNetMidBlock2D). */
export class MidBlock extends Module {
  readonly attentions?: readonly [SpatialMixer];
  readonly resnets: readonly [ResnetBlock2D, ResnetBlock2D];

  constructor(channels: number, resnet: ResnetSettings, mixer: StageConfig['mixer'], rng: Generator) {
    super();
    const block = () => new ResnetBlock2D({ ...resnet, inChannels: channels }, rng);
    const first = block();
    if (mixer) this.attentions = [mixer(channels)];
    this.resnets = [first, block()];
  }

  forward(x: Tensor, temb: Tensor, context?: AttentionInputs): Tensor {
    const y = this.resnets[0].forward(x, temb);
    return this.resnets[1].forward(this.attentions?.[0].forward(y, context) ?? y, temb);
  }
}
