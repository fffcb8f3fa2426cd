import { z } from 'zod';
import { parseFields } from '../io/index.js';
import {
  Attention,
  activate,
  Conv2d,
  GroupNorm,
  Linear,
  Module,
  parameter,
  TimestepEmbedding,
  timestepEmbedding,
  zeroed,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, type Tensor, type Variable } from '../tensor/index.js';
import { modelConfig, positive } from './config.js';
import { DownBlock, MidBlock, type ResnetSettings } from './unetBlocks.js';

/** The arguments of guided-diffusion's EncoderUNetModel, in camelCase. */
export const encoderUnetConfig = modelConfig({
  /** Height and width of the images. */
  imageSize: positive,
  inChannels: positive.default(3),
  /** Width of the first stage; also of the timestep's sinusoids. */
  modelChannels: positive,
  /** Number of classes. */
  outChannels: positive,
  numResBlocks: positive.default(2),
  /** Self-attention in the stages where the image is smaller by one of these factors; the middle always has it. */
  attentionResolutions: z.array(positive).default([]),
  dropout: z.number().min(0).max(1).default(0),
  /** Width of each stage, as a multiple of `modelChannels`. */
  channelMult: z.array(z.number().positive()).min(1).default([1, 2, 4, 8]),
  /** Halve the image by a convolution, not by averaging; unless `resblockUpdown`. */
  convResample: z.boolean().default(true),
  numHeads: positive.default(1),
  /** Width of a head, in place of their number. */
  numHeadChannels: positive.nullable().default(null),
  /** The timestep scales and shifts, in place of being added. */
  useScaleShiftNorm: z.boolean().default(false),
  /** Halve the image in a residual block. */
  resblockUpdown: z.boolean().default(false),
  /** How features become one answer: their mean, attention, or the means of every layer's. */
  pool: z.enum(['adaptive', 'attention', 'spatial', 'spatial_v2']).default('adaptive'),
  /** Groups of all group norms. */
  normGroups: positive.default(32),
});
export type EncoderUNetConfig = z.output<typeof encoderUnetConfig>;
export type EncoderUNetOptions = z.input<typeof encoderUnetConfig>;

const adm = { useScaleShiftNorm: true, resblockUpdown: true, pool: 'attention' } as const;
/** Three that train on a laptop's processor, and the paper's for ImageNet at 64 (its figure 2 and appendix). */
export const encoderUnetPresets = {
  tiny: { ...adm, modelChannels: 16, channelMult: [1, 2], numResBlocks: 1, numHeadChannels: 16, normGroups: 8 },
  xs: { ...adm, modelChannels: 24, channelMult: [1, 2, 2], numResBlocks: 1, numHeadChannels: 24, normGroups: 8 },
  s: {
    ...adm,
    modelChannels: 48,
    channelMult: [1, 2, 2],
    attentionResolutions: [4],
    numHeadChannels: 32,
    normGroups: 16,
  },
  imagenet64: {
    ...adm,
    modelChannels: 128,
    channelMult: [1, 2, 3, 4],
    numResBlocks: 4,
    attentionResolutions: [2, 4, 8],
    numHeadChannels: 64,
  },
} satisfies Record<string, Partial<EncoderUNetOptions>>;

/** How the last stage's image, and those of all layers before it, become logits [N, classes]. */
interface Readout extends Module {
  forward(last: Tensor, layers: readonly Tensor[]): Tensor;
}

/** The mean over all positions. */
class MeanReadout extends Module implements Readout {
  readonly norm: GroupNorm;
  readonly linear: Linear;

  constructor(channels: number, { normGroups, outChannels }: EncoderUNetConfig, rng: Generator) {
    super();
    this.norm = new GroupNorm(normGroups, channels);
    this.linear = zeroed(new Linear(channels, outChannels, rng));
  }

  forward(last: Tensor): Tensor {
    return this.linear.forward(activate('silu', this.norm.forward(last)).mean([2, 3]));
  }
}

/** The mean of all positions attends to them (CLIP's pooling, Radford et al. 2021). */
class AttentionReadout extends Module implements Readout {
  readonly norm: GroupNorm;
  /** [channels, 1 + positions], the mean's first. */
  readonly positionalEmbedding: Variable;
  readonly attention: Attention;
  readonly linear: Linear;

  constructor(channels: number, side: number, config: EncoderUNetConfig, rng: Generator) {
    super();
    const { normGroups, numHeadChannels: dimHead, outChannels } = config;
    if (!dimHead) throw new RangeError('EncoderUNet: pool attention needs numHeadChannels');
    this.norm = new GroupNorm(normGroups, channels);
    const table = rng.randn([channels, side ** 2 + 1]);
    this.positionalEmbedding = parameter({ ...table, data: table.data.map((x) => x / Math.sqrt(channels)) });
    const heads = Math.floor(channels / dimHead);
    this.attention = new Attention({ queryDim: channels, heads, dimHead, bias: true, preOnly: true }, rng);
    this.linear = new Linear(channels, outChannels, rng);
  }

  forward(last: Tensor): Tensor {
    const [n, channels] = last.shape;
    const positions = activate('silu', this.norm.forward(last)).reshape([n, channels, -1]);
    const all = concat([positions.mean(2, true), positions], 2);
    if (all.shape[2] !== this.positionalEmbedding.shape[1])
      throw new RangeError(
        `EncoderUNet: ${positions.shape[2]} positions to pool, expected ${this.positionalEmbedding.shape[1] - 1}: images of another size`,
      );
    const tokens = all.add(this.positionalEmbedding).swapAxes(1, 2);
    const pooled = this.attention.forward(tokens.slice(1, 0, 1), { encoderHiddenStates: tokens });
    return this.linear.forward(pooled.squeeze(1));
  }
}

/** Two layers on the means of every layer's image; `norm`: the second version. */
class LayersReadout extends Module implements Readout {
  readonly linear_1: Linear;
  readonly norm?: GroupNorm;
  readonly linear_2: Linear;

  constructor(features: number, { pool, normGroups, outChannels }: EncoderUNetConfig, rng: Generator) {
    super();
    this.linear_1 = new Linear(features, 2048, rng);
    if (pool === 'spatial_v2') this.norm = new GroupNorm(normGroups, 2048);
    this.linear_2 = new Linear(2048, outChannels, rng);
  }

  forward(_last: Tensor, layers: readonly Tensor[]): Tensor {
    const means = layers.map((x) => x.mean([2, 3]));
    const y = this.linear_1.forward(concat(means, 1));
    return this.linear_2.forward(this.norm ? activate('silu', this.norm.forward(y)) : activate('relu', y));
  }
}

/**
 * A classifier of noisy images, p(y | x_t, t): the way down of the UNet of "Diffusion Models Beat GANs on Image
 * Synthesis" (Dhariwal and Nichol 2021), as guided-diffusion's EncoderUNetModel.
 */
export class EncoderUNet extends Module {
  static readonly className = 'EncoderUNetModel';
  readonly timeEmbedding: TimestepEmbedding;
  readonly convIn: Conv2d;
  readonly downBlocks: readonly DownBlock[];
  readonly midBlock: MidBlock;
  readonly out: MeanReadout | AttentionReadout | LayersReadout;
  readonly config: EncoderUNetConfig;

  /**
   * @param rng initial weights are drawn from it; the last layer of every residual path starts at zero.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: EncoderUNetOptions, rng: Generator) {
    super();
    const config = parseFields(EncoderUNet.className, encoderUnetConfig, options);
    this.config = config;
    const { modelChannels, channelMult, numResBlocks: layers, normGroups: groups } = config;
    const timeEmbedDim = 4 * modelChannels;
    this.timeEmbedding = new TimestepEmbedding({ inChannels: modelChannels, timeEmbedDim }, rng);
    const widths = channelMult.map((multiple) => Math.trunc(multiple * modelChannels));
    this.convIn = new Conv2d(config.inChannels, widths[0], 3, { padding: 1 }, rng);

    const resnet: ResnetSettings = {
      tembChannels: timeEmbedDim,
      groups,
      eps: 1e-5,
      dropout: config.dropout,
      timeEmbeddingNorm: config.useScaleShiftNorm ? 'scale_shift' : 'default',
    };
    const mixer = (channels: number) => selfAttention(channels, config, rng);
    const downsample = config.resblockUpdown ? 'resnet' : config.convResample ? 'conv' : 'average';
    this.downBlocks = widths.map(
      (outChannels, i) =>
        new DownBlock(
          {
            inChannels: widths[Math.max(0, i - 1)],
            outChannels,
            layers,
            resnet,
            mixer: config.attentionResolutions.includes(2 ** i) ? mixer : undefined,
            downsample: i < widths.length - 1 ? downsample : undefined,
            downsamplePadding: 1,
          },
          rng,
        ),
    );
    const last = widths[widths.length - 1];
    this.midBlock = new MidBlock(last, resnet, mixer, rng);
    for (const [name, module] of this.namedModules()) if (/\.(conv2|to_out\.0)$/.test(name)) zeroed(module);

    const side = Math.floor(config.imageSize / 2 ** (widths.length - 1));
    if (config.pool === 'adaptive') this.out = new MeanReadout(last, config, rng);
    else if (config.pool === 'attention') this.out = new AttentionReadout(last, side, config, rng);
    else {
      const perStage = widths.map((width, i) => width * (layers + (i < widths.length - 1 ? 1 : 0)));
      this.out = new LayersReadout(widths[0] + perStage.reduce((a, b) => a + b, 0) + last, config, rng);
    }
  }

  get numClasses(): number {
    return this.config.outChannels;
  }
  get imageShape(): readonly [channels: number, height: number, width: number] {
    const { inChannels, imageSize } = this.config;
    return [inChannels, imageSize, imageSize];
  }

  /**
   * @param x noisy images [N, inChannels, H, W]; of `imageSize` for pool attention.
   * @param timestep [N], integers or floats.
   * @returns logits [N, outChannels].
   * @throws RangeError for images of other channels, or a size that the pooling does not know.
   */
  forward(x: Tensor, timestep: Tensor): Tensor {
    const { inChannels, modelChannels } = this.config;
    if (x.rank !== 4 || x.shape[1] !== inChannels)
      throw new RangeError(`EncoderUNet: images [${x.shape}], expected [N, ${inChannels}, H, W]`);
    const sinusoids = timestepEmbedding(timestep, modelChannels, { flipSinToCos: true, downscaleFreqShift: 0 });
    const time = this.timeEmbedding.forward(sinusoids);
    let y = this.convIn.forward(x);
    const layers = [y];
    for (const block of this.downBlocks) {
      const down = block.forward(y, time);
      layers.push(...down.skips);
      y = down.x;
    }
    y = this.midBlock.forward(y, time);
    return this.out.forward(y, [...layers, y]);
  }
}

function selfAttention(channels: number, config: EncoderUNetConfig, rng: Generator): Attention {
  const { numHeads, numHeadChannels, normGroups: normNumGroups } = config;
  const dimHead = numHeadChannels ?? channels / numHeads;
  if (channels % dimHead !== 0 || dimHead % 1 !== 0)
    throw new RangeError(
      `EncoderUNet: ${numHeadChannels ? `heads of ${numHeadChannels}` : `${numHeads} heads`} do not divide ${channels} channels`,
    );
  const heads = channels / dimHead;
  return new Attention(
    { queryDim: channels, heads, dimHead, bias: true, normNumGroups, residualConnection: true },
    rng,
  );
}
