import { z } from 'zod';
import { ndarray } from '../array/index.js';
import { parseFields } from '../io/index.js';
import { Conv2d, Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { constant, type Tensor } from '../tensor/index.js';
import { Decoder, Encoder } from './autoencoderParts.js';
import { activation, blockTypes, modelConfig, positive } from './config.js';
import { DiagonalGaussian } from './diagonalGaussian.js';
import { blendTiles, type Tiles, type Tiling } from './tiles.js';

/** The fields of diffusers' AutoencoderKL. */
export const autoencoderKlConfig = modelConfig({
  inChannels: positive.default(3),
  outChannels: positive.default(3),
  /** From the full resolution down; each stage but the last halves the image. */
  downBlockTypes: blockTypes('DownEncoderBlock2D', 'AttnDownEncoderBlock2D').default(['DownEncoderBlock2D']),
  upBlockTypes: blockTypes('UpDecoderBlock2D', 'AttnUpDecoderBlock2D').default(['UpDecoderBlock2D']),
  blockOutChannels: z.array(positive).min(1).default([64]),
  layersPerBlock: positive.default(1),
  actFn: activation.default('silu'),
  latentChannels: positive.default(4),
  normNumGroups: positive.default(32),
  /** Of the images it is meant for, and the default side of a tile. */
  sampleSize: z.union([positive, z.tuple([positive, positive])]).default(32),
  /** What a diffusion model sees is (latents - shiftFactor) * scalingFactor. */
  scalingFactor: z.number().positive().default(0.18215),
  shiftFactor: z.number().nullish(),
  /** By channel, where they take the place of the shift. */
  latentsMean: z.array(z.number()).nullish(),
  latentsStd: z.array(z.number().positive()).nullish(),
  /** For 16-bit arithmetic; here all is computed in float32. */
  forceUpcast: z.boolean().default(true),
  useQuantConv: z.boolean().default(true),
  usePostQuantConv: z.boolean().default(true),
  /** Attention in the middle of encoder and decoder. */
  midBlockAddAttention: z.boolean().default(true),
});
export type AutoencoderKLConfig = z.output<typeof autoencoderKlConfig>;
export type AutoencoderKLOptions = z.input<typeof autoencoderKlConfig>;

/**
 * The variational autoencoder of latent diffusion (Kingma & Welling 2014, Rombach et al. 2022), laid out as diffusers'
 * AutoencoderKL: 4 channels in Stable Diffusion 1, 2 and XL, 16 without the 1x1 convolutions in Stable Diffusion 3.
 */
export class AutoencoderKL extends Module {
  static readonly className = 'AutoencoderKL';
  readonly encoder: Encoder;
  readonly decoder: Decoder;
  readonly quantConv?: Conv2d;
  readonly postQuantConv?: Conv2d;
  readonly config: AutoencoderKLConfig;

  /**
   * @param rng initial weights are drawn from it, as PyTorch draws them.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: AutoencoderKLOptions, rng: Generator) {
    super();
    const config = parseFields(AutoencoderKL.className, autoencoderKlConfig, options);
    this.config = config;
    checkSizes(config);
    const { latentChannels: channels } = config;
    this.encoder = new Encoder(config.inChannels, 2 * channels, config.downBlockTypes, config, rng);
    this.decoder = new Decoder(channels, config.outChannels, config.upBlockTypes, config, rng);
    if (config.useQuantConv) this.quantConv = new Conv2d(2 * channels, 2 * channels, 1, {}, rng);
    if (config.usePostQuantConv) this.postQuantConv = new Conv2d(channels, channels, 1, {}, rng);
  }

  /** How many pixels of a side one of the latents stands for. */
  get downsampling(): number {
    return 2 ** (this.config.blockOutChannels.length - 1);
  }

  /**
   * @param images [N, inChannels, H, W] in [-1, 1].
   * @returns the distribution of their latents [N, latentChannels, H / downsampling, W / downsampling].
   */
  encode(images: Tensor): DiagonalGaussian {
    const encoded = this.encoder.forward(images);
    return new DiagonalGaussian(this.quantConv?.forward(encoded) ?? encoded);
  }

  /**
   * @param latents as they come from {@link encode}: {@link latentsFrom} undoes what a diffusion model's are scaled by.
   * @returns images [N, outChannels, H, W], about [-1, 1].
   */
  decode(latents: Tensor): Tensor {
    return this.decoder.forward(this.postQuantConv?.forward(latents) ?? latents);
  }

  /** How images are cut to be encoded; their moments are put together. @throws RangeError for tiles of no use. */
  encoderTiles(tiling: Tiling = {}): Tiles {
    const { sample, latent, overlap } = this.tileSizes(tiling);
    return blended(sample, latent, overlap);
  }

  /** How latents are cut to be decoded. @throws RangeError for tiles of no use. */
  decoderTiles(tiling: Tiling = {}): Tiles {
    const { sample, latent, overlap } = this.tileSizes(tiling);
    return blended(latent, sample, overlap);
  }

  /** Images to latents and back: by their most likely latents, or drawn ones. */
  forward(images: Tensor, noise?: Tensor | Generator): Tensor {
    const latents = this.encode(images);
    return this.decode(noise ? latents.sample(noise) : latents.mode());
  }

  /** Latents as a diffusion model sees them: about of unit variance. */
  scaleLatents(latents: Tensor): Tensor {
    const { mean, factor } = this.latentScale();
    return latents.sub(mean).mul(factor);
  }

  /** The inverse of {@link scaleLatents}. */
  latentsFrom(scaled: Tensor): Tensor {
    const { mean, factor } = this.latentScale();
    return scaled.div(factor).add(mean);
  }

  private latentScale(): { mean: Tensor | number; factor: Tensor | number } {
    const { scalingFactor, shiftFactor, latentsMean, latentsStd } = this.config;
    if (!latentsMean || !latentsStd) return { mean: shiftFactor ?? 0, factor: scalingFactor };
    const channels = (values: readonly number[]) => constant(ndarray([...values], [values.length, 1, 1]));
    return { mean: channels(latentsMean), factor: channels(latentsStd.map((std) => scalingFactor / std)) };
  }

  private tileSizes(tiling: Tiling): { sample: number; latent: number; overlap: number } {
    const { sampleSize } = this.config;
    const sample = tiling.tileSampleMinSize ?? (typeof sampleSize === 'number' ? sampleSize : sampleSize[0]);
    const latent = tiling.tileLatentMinSize ?? Math.floor(sample / this.downsampling);
    const overlap = tiling.tileOverlapFactor ?? 0.25;
    if (!(overlap >= 0 && overlap < 1) || Math.floor(latent * (1 - overlap)) < 1)
      throw new RangeError(
        `AutoencoderKL: tiles of ${sample} pixels (${latent} of a latent) cannot overlap by ${overlap}`,
      );
    return { sample, latent, overlap };
  }
}

/** Tiles of side `from`, which come out with side `to`. */
function blended(from: number, to: number, overlap: number): Tiles {
  const blend = Math.floor(to * overlap);
  return {
    size: from,
    stride: Math.floor(from * (1 - overlap)),
    whole: from,
    join: (rows) => blendTiles(rows, blend, to - blend),
  };
}

function checkSizes({ blockOutChannels, downBlockTypes, upBlockTypes, ...config }: AutoencoderKLConfig): void {
  const counts = [blockOutChannels, downBlockTypes, upBlockTypes].map((list) => list.length);
  if (new Set(counts).size > 1)
    throw new RangeError(
      `AutoencoderKL: ${counts[0]} blockOutChannels, ${counts[1]} downBlockTypes and ${counts[2]} upBlockTypes, expected as many of each`,
    );
  const { latentChannels, latentsMean, latentsStd } = config;
  for (const [name, values] of Object.entries({ latentsMean, latentsStd }))
    if (values && values.length !== latentChannels)
      throw new RangeError(`AutoencoderKL: ${name} has ${values.length} entries for ${latentChannels} latentChannels`);
}
