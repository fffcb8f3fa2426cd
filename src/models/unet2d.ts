import { z } from 'zod';
import { parseFields } from '../io/index.js';
import {
  Attention,
  activate,
  Conv2d,
  Embedding,
  GaussianFourierProjection,
  GroupNorm,
  Module,
  TimestepEmbedding,
  Timesteps,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { activation, blockTypes, modelConfig, positive } from './config.js';
import type { Denoiser } from './denoiser.js';
import { defaultGroups, SkipDownBlock, SkipUpBlock } from './skipBlocks.js';
import { DownBlock, MidBlock, type ResnetSettings, UpBlock } from './unetBlocks.js';

const resampling = z.enum(['conv', 'resnet']).default('conv');

/** The fields of diffusers' UNet2DModel. */
export const unet2dConfig = modelConfig({
  sampleSize: z.union([positive, z.tuple([positive, positive])]).nullish(),
  inChannels: positive.default(3),
  outChannels: positive.default(3),
  /** Images come in [0, 1] and are brought to [-1, 1]. */
  centerInputSample: z.boolean().default(false),
  timeEmbeddingType: z.enum(['positional', 'fourier', 'learned']).default('positional'),
  /** Default 4 * blockOutChannels[0]. */
  timeEmbeddingDim: positive.nullish(),
  freqShift: z.number().default(0),
  flipSinToCos: z.boolean().default(true),
  /** From the full resolution down; each stage but the last halves the image. */
  downBlockTypes: blockTypes(
    'DownBlock2D',
    'ResnetDownsampleBlock2D',
    'AttnDownBlock2D',
    'SkipDownBlock2D',
    'AttnSkipDownBlock2D',
  ).default(['DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D']),
  midBlockType: z.literal('UNetMidBlock2D').nullable().default('UNetMidBlock2D'),
  upBlockTypes: blockTypes(
    'UpBlock2D',
    'ResnetUpsampleBlock2D',
    'AttnUpBlock2D',
    'SkipUpBlock2D',
    'AttnSkipUpBlock2D',
  ).default(['AttnUpBlock2D', 'AttnUpBlock2D', 'AttnUpBlock2D', 'UpBlock2D']),
  blockOutChannels: z.array(positive).min(1).default([224, 448, 672, 896]),
  layersPerBlock: positive.default(2),
  midBlockScaleFactor: z.number().positive().default(1),
  downsamplePadding: z.number().int().min(0).default(1),
  /** How stages with attention halve the image; the others' names say it. */
  downsampleType: resampling,
  upsampleType: resampling,
  dropout: z.number().min(0).max(1).default(0),
  actFn: activation.default('silu'),
  /** Width of a head; null for one head. */
  attentionHeadDim: positive.nullable().default(8),
  /** null (a quarter of the channels, at most 32) only where all blocks are Skip ones, which choose that way anyhow. */
  normNumGroups: positive.nullable().default(32),
  /** Of the middle's attention; by default `normNumGroups`, or no norm at all when the time scales and shifts. */
  attnNormNumGroups: positive.nullish(),
  normEps: z.number().positive().default(1e-5),
  resnetTimeScaleShift: z.enum(['default', 'scale_shift']).default('default'),
  /** Attention in the middle. */
  addAttention: z.boolean().default(true),
  /** Labels are embedded like timesteps, or come as embeddings; null: looked up in a table of `numClassEmbeds` rows. */
  classEmbedType: z.enum(['timestep', 'identity']).nullish(),
  /** For guidance without a classifier: number of classes + 1, the last row standing for "no class". */
  numClassEmbeds: positive.nullish(),
  /** For learned time embeddings. */
  numTrainTimesteps: positive.nullish(),
});
export type UNet2DConfig = z.output<typeof unet2dConfig>;
export type UNet2DOptions = Partial<UNet2DConfig>;

/** The usual shape: widths by stage, attention in the stages marked. */
function stages(channels: readonly number[], attention: readonly boolean[], layersPerBlock: number): UNet2DOptions {
  const down = attention.map((marked) => (marked ? 'AttnDownBlock2D' : 'DownBlock2D'));
  const up = attention.map((marked) => (marked ? 'AttnUpBlock2D' : 'UpBlock2D')).reverse();
  return { blockOutChannels: [...channels], downBlockTypes: down, upBlockTypes: up, layersPerBlock };
}
/** Three that train on a laptop's processor (s: the benchmark's), and that of Ho et al. 2020 for CIFAR-10. */
export const unet2dPresets = {
  tiny: { ...stages([16, 32], [false, false], 1), normNumGroups: 8 },
  xs: { ...stages([32, 64, 64], [false, false, true], 1), normNumGroups: 16 },
  s: { ...stages([48, 96, 96], [false, false, true], 2), normNumGroups: 16 },
  ddpm: {
    ...stages([128, 256, 256, 256], [false, true, false, false], 2),
    attentionHeadDim: null,
    downsamplePadding: 0,
    dropout: 0.1,
    flipSinToCos: false,
    freqShift: 1,
    normEps: 1e-6,
  },
} satisfies Record<string, UNet2DOptions>;

/**
 * The UNet of "Denoising Diffusion Probabilistic Models" (Ho et al. 2020), unconditional or with classes,
 * laid out as diffusers' UNet2DModel: stages of residual blocks (and self-attention) down and up, with skips between.
 */
export class UNet2D extends Module implements Denoiser {
  static readonly className = 'UNet2DModel';
  readonly convIn: Conv2d;
  readonly timeProj: Timesteps | GaussianFourierProjection | Embedding;
  readonly timeEmbedding: TimestepEmbedding;
  readonly classEmbedding?: Embedding | TimestepEmbedding;
  readonly downBlocks: readonly (DownBlock | SkipDownBlock)[];
  readonly midBlock?: MidBlock;
  readonly upBlocks: readonly (UpBlock | SkipUpBlock)[];
  readonly convNormOut: GroupNorm;
  readonly convOut: Conv2d;
  readonly config: UNet2DConfig;

  /**
   * @param rng initial weights are drawn from it, as PyTorch draws them.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: UNet2DOptions, rng: Generator) {
    super();
    const config = parseFields(UNet2D.className, unet2dConfig, options);
    this.config = config;
    checkStages(config);
    const { blockOutChannels: channels, layersPerBlock: layers, normEps: eps } = config;
    const [first, lowest] = [channels[0], channels.length - 1];
    this.convIn = new Conv2d(config.inChannels, first, 3, { padding: 1 }, rng);
    const timeEmbedDim = config.timeEmbeddingDim ?? 4 * first;
    const [timeProj, sinusoids] = createTimeProjection(config, rng);
    this.timeProj = timeProj;
    this.timeEmbedding = new TimestepEmbedding({ inChannels: sinusoids, timeEmbedDim }, rng);
    if (config.classEmbedType === 'timestep')
      this.classEmbedding = new TimestepEmbedding({ inChannels: sinusoids, timeEmbedDim }, rng);
    else if (!config.classEmbedType && config.numClassEmbeds)
      this.classEmbedding = new Embedding(config.numClassEmbeds, timeEmbedDim, rng);

    const resnet: ResnetSettings = {
      tembChannels: timeEmbedDim,
      groups: config.normNumGroups ?? undefined,
      eps,
      dropout: config.dropout,
      nonLinearity: config.actFn,
      timeEmbeddingNorm: config.resnetTimeScaleShift,
    };
    const imageResnet = { ...resnet, outputScaleFactor: Math.SQRT2 };
    const attention = (normNumGroups?: number, rescaleOutputFactor?: number) => (width: number) => {
      const dimHead = config.attentionHeadDim ?? width;
      const heads = Math.floor(width / dimHead);
      if (heads === 0) throw new RangeError(`UNet2D: attentionHeadDim ${dimHead} is more than ${width} channels`);
      const settings = { queryDim: width, heads, dimHead, bias: true, eps, residualConnection: true };
      return new Attention({ ...settings, normNumGroups, rescaleOutputFactor }, rng);
    };
    /** What a stage's name says. */
    const stage = (type: string, resampleType: 'conv' | 'resnet') => ({
      seesImage: type.includes('Skip'),
      mixer: type.startsWith('AttnSkip')
        ? attention(32, Math.SQRT2)
        : type.startsWith('Attn')
          ? attention(resnet.groups)
          : undefined,
      ending: type.startsWith('Resnet') ? 'resnet' : type.startsWith('Attn') ? resampleType : ('conv' as const),
    });

    const skips = [first];
    this.downBlocks = config.downBlockTypes.map((type, i) => {
      const { seesImage, mixer, ending } = stage(type, config.downsampleType);
      const resample = i < lowest;
      const shape = { inChannels: channels[Math.max(0, i - 1)], outChannels: channels[i], layers };
      skips.push(...Array.from({ length: resample ? layers + 1 : layers }, () => channels[i]));
      if (seesImage) return new SkipDownBlock({ ...shape, resnet: imageResnet, mixer, resample }, rng);
      const { downsamplePadding } = config;
      return new DownBlock(
        { ...shape, resnet, mixer, downsample: resample ? ending : undefined, downsamplePadding },
        rng,
      );
    });

    if (config.midBlockType) {
      const groups = config.normNumGroups ?? defaultGroups(channels[lowest]);
      const outputScaleFactor = config.midBlockScaleFactor;
      const norm = config.attnNormNumGroups ?? (config.resnetTimeScaleShift === 'default' ? groups : undefined);
      const mixer = config.addAttention ? attention(norm, outputScaleFactor) : undefined;
      this.midBlock = new MidBlock(channels[lowest], { ...resnet, groups, outputScaleFactor }, mixer, rng);
    }

    this.upBlocks = config.upBlockTypes.map((type, i) => {
      const { seesImage, mixer, ending } = stage(type, config.upsampleType);
      const resample = i < lowest;
      const skipChannels = skips.splice(-layers - 1).reverse();
      const shape = {
        inChannels: channels[Math.min(lowest, lowest - i + 1)],
        outChannels: channels[lowest - i],
        skipChannels,
      };
      if (seesImage) return new SkipUpBlock({ ...shape, resnet: imageResnet, mixer, resample }, rng);
      return new UpBlock({ ...shape, resnet, mixer, upsample: resample ? ending : undefined }, rng);
    });
    const groups = config.normNumGroups ?? defaultGroups(first);
    this.convNormOut = new GroupNorm(groups, first, { eps });
    this.convOut = new Conv2d(first, config.outChannels, 3, { padding: 1 }, rng);
  }

  get inChannels(): number {
    return this.config.inChannels;
  }
  get outChannels(): number {
    return this.config.outChannels;
  }
  get sampleSize(): number {
    const { sampleSize } = this.config;
    const [height, width] = Array.isArray(sampleSize) ? sampleSize : [sampleSize, sampleSize];
    if (height && height === width) return height;
    throw new RangeError(
      `UNet2D: sampleSize ${JSON.stringify(sampleSize)} is no side of a square; give the image's size`,
    );
  }
  /** The last row of the table of classes. */
  get nullClass(): number | undefined {
    return this.classEmbedding instanceof Embedding ? this.config.numClassEmbeds! - 1 : undefined;
  }

  /**
   * @param x noisy images [N, inChannels, H, W].
   * @param timestep [N], integers or floats; noise levels for Fourier embeddings, which also divide the result.
   * @param classLabels int64 [N], 0..numClassEmbeds-1; any numbers for `classEmbedType` timestep, [N, dim] for identity.
   * @returns [N, outChannels, H, W].
   * @throws Error when labels are missing, or given to a model without classes.
   */
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
    const temb = this.condition(timestep, classLabels);
    const image = this.config.centerInputSample ? x.mul(2).sub(1) : x;
    let y = this.convIn.forward(image);
    const skips = [y];
    let pyramid = image;
    for (const block of this.downBlocks) {
      const down =
        block instanceof SkipDownBlock ? block.forward(y, temb, pyramid) : { ...block.forward(y, temb), pyramid };
      skips.push(...down.skips);
      ({ x: y, pyramid } = down);
    }
    y = this.midBlock?.forward(y, temb) ?? y;
    let painted: Tensor | undefined;
    for (const block of this.upBlocks)
      if (block instanceof SkipUpBlock) ({ x: y, pyramid: painted } = block.forward(y, skips, temb, painted));
      else y = block.forward(y, skips, temb);
    const last = this.convOut.forward(activate('silu', this.convNormOut.forward(y)));
    const out = painted ? last.add(painted) : last;
    return this.config.timeEmbeddingType === 'fourier' ? out.div(timestep.cast('float32').reshape([-1, 1, 1, 1])) : out;
  }

  /** Timestep and class as one vector [N, timeEmbedDim]. */
  private condition(timestep: Tensor, classLabels?: Tensor): Tensor {
    const project = (values: Tensor) =>
      this.timeProj.forward(values.cast(this.timeProj instanceof Embedding ? 'int64' : 'float32'));
    const time = this.timeEmbedding.forward(project(timestep));
    const conditional = this.classEmbedding !== undefined || this.config.classEmbedType === 'identity';
    if (conditional && !classLabels) throw new Error('UNet2D: needs class labels');
    if (!conditional && classLabels) throw new Error('UNet2D: got class labels, but the model has no classes');
    if (!classLabels) return time;
    if (!this.classEmbedding) return time.add(classLabels);
    const labels = this.classEmbedding instanceof Embedding ? classLabels : project(classLabels);
    return time.add(this.classEmbedding.forward(labels));
  }
}

function checkStages({ blockOutChannels, downBlockTypes, upBlockTypes, normNumGroups }: UNet2DConfig): void {
  const counts = [blockOutChannels, downBlockTypes, upBlockTypes].map((list) => list.length);
  if (new Set(counts).size > 1)
    throw new RangeError(
      `UNet2D: ${counts[0]} blockOutChannels, ${counts[1]} downBlockTypes and ${counts[2]} upBlockTypes, expected as many of each`,
    );
  const plain = [...downBlockTypes, ...upBlockTypes].find((type) => !type.includes('Skip'));
  if (normNumGroups === null && plain) throw new RangeError(`UNet2D: ${plain} needs normNumGroups`);
}

/** What turns timesteps into vectors, and their width. */
function createTimeProjection(config: UNet2DConfig, rng: Generator): [UNet2D['timeProj'], number] {
  const { timeEmbeddingType, numTrainTimesteps, flipSinToCos, freqShift } = config;
  const width = config.blockOutChannels[0];
  if (timeEmbeddingType === 'fourier')
    return [new GaussianFourierProjection({ embeddingSize: width, scale: 16 }, rng), 2 * width];
  if (timeEmbeddingType === 'positional')
    return [new Timesteps(width, { flipSinToCos, downscaleFreqShift: freqShift }), width];
  if (!numTrainTimesteps) throw new RangeError('UNet2D: learned time embeddings need numTrainTimesteps');
  return [new Embedding(numTrainTimesteps, width, rng), width];
}
