import {
  Attention,
  Downsample2D,
  Module,
  ResnetBlock2D,
  type ResnetBlock2DConfig,
  type TransformerBlockInputs,
  Upsample2D,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, pad, type Tensor } from '../tensor/index.js';

/** What all residual blocks of a stage have in common. */
export type ResnetSettings = Omit<ResnetBlock2DConfig, 'inChannels' | 'outChannels' | 'up' | 'down'>;

/** What positions may attend to besides one another: text, and masks that are added to the scores. */
export type SpatialContext = Pick<
  TransformerBlockInputs,
  'encoderHiddenStates' | 'attentionMask' | 'encoderAttentionMask'
>;

/** Mixes the positions of an image [N, C, H, W] after a residual block: self-attention, or a transformer with a context. */
export interface SpatialMixer extends Module {
  forward(x: Tensor, context?: SpatialContext): Tensor;
}

/** Attention of an image's positions to one another, whatever the context. */
export class SelfAttention2D extends Attention {
  override forward(x: Tensor): Tensor {
    return super.forward(x);
  }
}

const none = (): [number, number] => [0, 0];

/** The same to the context, too, by keys and values of its own. */
export class ContextAttention2D extends Attention {
  /** @param context one of the masks is of the context's keys [N, 1, K]; all the image's own may be attended to. */
  override forward(x: Tensor, context: SpatialContext = {}): Tensor {
    const { encoderHiddenStates, attentionMask = encoderHiddenStates && context.encoderAttentionMask } = context;
    const ownKeys = this.config.onlyCrossAttention ? 0 : x.shape[2] * x.shape[3];
    const mask = attentionMask && pad(attentionMask, [...attentionMask.shape.slice(1).map(none), [0, ownKeys]]);
    return super.forward(x, { encoderHiddenStates, attentionMask: mask });
  }
}

interface StageConfig {
  /** Channels that come from the stage before. */
  readonly inChannels: number;
  readonly outChannels: number;
  readonly resnet: ResnetSettings;
  /** Makes what follows each residual block, if anything does; `layer` counts the stage's blocks. */
  readonly mixer?: (channels: number, layer: number) => SpatialMixer;
}

export interface DownBlockConfig extends StageConfig {
  /** Number of residual blocks. */
  readonly layers: number;
  /** How the stage ends: by a strided convolution, an average, or a residual block that averages. */
  readonly downsample?: 'conv' | 'average' | 'resnet';
  /** Of that convolution; 0 pads the right and bottom edge only. */
  readonly downsamplePadding: number;
}

/** A stage on the way down: diffusers' DownBlock2D, ResnetDownsampleBlock2D, and those with attention of some kind. */
export class DownBlock extends Module {
  readonly attentions?: readonly SpatialMixer[];
  readonly resnets: readonly ResnetBlock2D[];
  readonly downsamplers?: readonly [Downsample2D | ResnetBlock2D];

  constructor(config: DownBlockConfig, rng: Generator) {
    super();
    const { inChannels, outChannels, layers, resnet, downsample } = config;
    const inputs = Array.from({ length: layers }, (_, i) => (i === 0 ? inChannels : outChannels));
    [this.resnets, this.attentions] = layersOf(inputs, config, rng);
    if (downsample === 'resnet')
      this.downsamplers = [new ResnetBlock2D({ ...resnet, inChannels: outChannels, down: true }, rng)];
    else if (downsample) {
      const halving = { channels: outChannels, useConv: downsample === 'conv', padding: config.downsamplePadding };
      this.downsamplers = [new Downsample2D(halving, rng)];
    }
  }

  /**
   * @param adapted added to what the last layer makes of the image, before it is halved (a T2I-Adapter's features).
   * @returns the image for the next stage, and what each layer leaves for the way up.
   */
  forward(x: Tensor, temb?: Tensor, context?: SpatialContext, adapted?: Tensor): { x: Tensor; skips: Tensor[] } {
    const skips: Tensor[] = [];
    let y = x;
    for (const [i, resnet] of this.resnets.entries()) {
      y = resnet.forward(y, temb);
      y = this.attentions?.[i].forward(y, context) ?? y;
      if (adapted && i === this.resnets.length - 1) y = y.add(adapted);
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
  /** Channels of the skip that each residual block takes; 0 for a decoder's, which takes none. */
  readonly skipChannels: readonly number[];
  /** How the stage ends: by a convolution of the doubled image, or a residual block that doubles it. */
  readonly upsample?: 'conv' | 'resnet';
}

/** A stage on the way up: diffusers' UpBlock2D, ResnetUpsampleBlock2D, and those with attention of some kind. */
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

  /**
   * @param skips left by the way down: takes its own off the end, and a convolution grows to the size of the next.
   * @throws RangeError where a residual block, which doubles, does not come to that size.
   */
  forward(x: Tensor, skips: Tensor[] = [], temb?: Tensor, context?: SpatialContext): Tensor {
    let y = x;
    for (const [i, resnet] of this.resnets.entries()) {
      const skip = skips.pop();
      y = resnet.forward(skip ? concat([y, skip], 1) : y, temb);
      y = this.attentions?.[i].forward(y, context) ?? y;
    }
    for (const layer of this.upsamplers ?? []) {
      const size = skips.at(-1)?.shape.slice(2) as [number, number] | undefined;
      y = layer instanceof ResnetBlock2D ? layer.forward(y, temb) : layer.forward(y, size);
      const [height, width] = y.shape.slice(2);
      if (size && (size[0] !== height || size[1] !== width))
        throw new RangeError(
          `UpBlock: a residual block doubles the image to ${height}x${width}, but the way down left ${size.join('x')}`,
        );
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
  const layers = inputs.map((inChannels, i) => ({
    resnet: new ResnetBlock2D({ ...resnet, inChannels, outChannels }, rng),
    mixer: mixer?.(outChannels, i),
  }));
  return [layers.map((layer) => layer.resnet), mixer && layers.map((layer) => layer.mixer!)];
}

/** The lowest stage: residual blocks with a mixer between them (diffusers' UNetMidBlock2D and its kin). */
export class MidBlock extends Module {
  readonly attentions?: readonly [SpatialMixer];
  readonly resnets: readonly ResnetBlock2D[];

  /** @param layers number of residual blocks: two, or one, which no mixer follows. */
  constructor(
    channels: number,
    resnet: ResnetSettings,
    mixer: StageConfig['mixer'],
    rng: Generator,
    layers: 1 | 2 = 2,
  ) {
    super();
    const block = () => new ResnetBlock2D({ ...resnet, inChannels: channels }, rng);
    const first = block();
    if (layers === 2 && mixer) this.attentions = [mixer(channels, 0)];
    this.resnets = layers === 2 ? [first, block()] : [first];
  }

  forward(x: Tensor, temb?: Tensor, context?: SpatialContext): Tensor {
    const [first, last] = this.resnets;
    const y = first.forward(x, temb);
    return last?.forward(this.attentions?.[0].forward(y, context) ?? y, temb) ?? y;
  }
}
