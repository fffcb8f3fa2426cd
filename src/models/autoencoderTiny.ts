import { z } from 'zod';
import { type NdArray, zeros } from '../array/index.js';
import { parseFields } from '../io/index.js';
import { Activation, type ActivationName, activate, Conv2d, Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { resizeNearest, stopGradient, type Tensor } from '../tensor/index.js';
import { activation, modelConfig, positive } from './config.js';
import { eachRow, type Tiles, type Tiling } from './tiles.js';

const four = (...values: number[]) => z.array(positive).min(1).default(values);

/** The fields of diffusers' AutoencoderTiny. */
export const autoencoderTinyConfig = modelConfig({
  inChannels: positive.default(3),
  outChannels: positive.default(3),
  /** The same number for every stage. */
  encoderBlockOutChannels: four(64, 64, 64, 64),
  decoderBlockOutChannels: four(64, 64, 64, 64),
  actFn: activation.default('relu'),
  upsampleFn: z.literal('nearest').default('nearest'),
  latentChannels: positive.default(4),
  upsamplingScalingFactor: positive.default(2),
  /** Residual blocks of each stage; each but the first begins by halving the image. */
  numEncoderBlocks: four(1, 3, 3, 3),
  /** Each but the last ends by doubling it. */
  numDecoderBlocks: four(3, 3, 3, 1),
  /** Latents lie between -latentMagnitude and latentMagnitude, and are brought to [0, 1] to be rounded. */
  latentMagnitude: z.number().positive().default(3),
  latentShift: z.number().default(0.5),
  forceUpcast: z.boolean().default(false),
  scalingFactor: z.number().positive().default(1),
  shiftFactor: z.number().default(0),
  /** diffusers notes the decoder's here. */
  blockOutChannels: z.array(positive).nullish(),
});
export type AutoencoderTinyConfig = z.output<typeof autoencoderTinyConfig>;
export type AutoencoderTinyOptions = z.input<typeof autoencoderTinyConfig>;

/** Three convolutions beside the identity. */
class TinyBlock extends Module {
  readonly conv: readonly (Conv2d | Activation)[];

  constructor(channels: number, actFn: ActivationName, rng: Generator) {
    super();
    const conv = () => new Conv2d(channels, channels, 3, { padding: 1 }, rng);
    this.conv = [conv(), new Activation(actFn), conv(), new Activation(actFn), conv()];
  }

  forward(x: Tensor): Tensor {
    return activate('relu', this.conv.reduce((y, layer) => layer.forward(y), x).add(x));
  }
}

/** Repeats pixels. */
class Enlarge extends Module {
  constructor(readonly factor: number) {
    super();
  }

  forward(x: Tensor): Tensor {
    return resizeNearest(x, [x.shape[2] * this.factor, x.shape[3] * this.factor]);
  }
}

class Layers extends Module {
  constructor(readonly layers: readonly (Conv2d | Activation | TinyBlock | Enlarge)[]) {
    super();
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce((y, layer) => layer.forward(y), x);
  }
}

/**
 * TAESD (Bohan 2023): a small autoencoder distilled from Stable Diffusion's, for previews and small machines. Laid out
 * as diffusers' AutoencoderTiny.
 */
export class AutoencoderTiny extends Module {
  static readonly className = 'AutoencoderTiny';
  readonly encoder: Layers;
  readonly decoder: Layers;
  readonly config: AutoencoderTinyConfig;

  /**
   * @param rng initial weights are drawn from it, as PyTorch draws them.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: AutoencoderTinyOptions, rng: Generator) {
    super();
    const config = parseFields(AutoencoderTiny.className, autoencoderTinyConfig, options);
    this.config = config;
    this.encoder = createEncoder(config, rng);
    this.decoder = createDecoder(config, rng);
  }

  /** How many pixels of a side one of the latents stands for. */
  get downsampling(): number {
    return 2 ** (this.config.numEncoderBlocks.length - 1);
  }

  /**
   * @param images [N, inChannels, H, W] in [-1, 1].
   * @returns latents [N, latentChannels, H / downsampling, W / downsampling].
   */
  encode(images: Tensor): Tensor {
    return this.encoder.forward(images.add(1).div(2));
  }

  /** @returns images [N, outChannels, H, W], about [-1, 1]. */
  decode(latents: Tensor): Tensor {
    return this.decoder.forward(latents.div(3).tanh().mul(3)).mul(2).sub(1);
  }

  /** How images are cut to be encoded: sides have to be multiples of `downsampling`. @throws RangeError for tiles of no use. */
  encoderTiles(tiling: Tiling = {}): Tiles {
    const { sample, overlap } = this.tileSizes(tiling);
    return overlaid(sample, overlap, 1 / this.downsampling);
  }

  /** How latents are cut to be decoded. @throws RangeError for tiles of no use. */
  decoderTiles(tiling: Tiling = {}): Tiles {
    const { upsamplingScalingFactor: factor, numDecoderBlocks } = this.config;
    const { latent, overlap } = this.tileSizes(tiling);
    return overlaid(latent, overlap, factor ** (numDecoderBlocks.length - 1));
  }

  /** Images to latents of 8 bits and back. The rounding lets gradients through. */
  forward(images: Tensor): Tensor {
    const { latentMagnitude, latentShift } = this.config;
    const unit = this.encode(images)
      .div(2 * latentMagnitude)
      .add(latentShift)
      .clamp(0, 1);
    const rounded = unit.add(stopGradient(unit.mul(255).round().div(255).sub(unit)));
    return this.decode(rounded.sub(latentShift).mul(2 * latentMagnitude));
  }

  /** Latents as a diffusion model sees them. */
  scaleLatents(latents: Tensor): Tensor {
    return latents.sub(this.config.shiftFactor).mul(this.config.scalingFactor);
  }

  /** The inverse of {@link scaleLatents}. */
  latentsFrom(scaled: Tensor): Tensor {
    return scaled.div(this.config.scalingFactor).add(this.config.shiftFactor);
  }

  private tileSizes(tiling: Tiling): { sample: number; latent: number; overlap: number } {
    const sample = tiling.tileSampleMinSize ?? 512;
    const latent = tiling.tileLatentMinSize ?? Math.floor(sample / this.downsampling);
    const overlap = tiling.tileOverlapFactor ?? 0.125;
    if (!(overlap >= 0 && overlap < 1) || latent < 1)
      throw new RangeError(
        `AutoencoderTiny: tiles of ${sample} pixels (${latent} of a latent) cannot overlap by ${overlap}`,
      );
    return { sample, latent, overlap };
  }
}

function createEncoder(config: AutoencoderTinyConfig, rng: Generator): Layers {
  const { encoderBlockOutChannels, numEncoderBlocks, inChannels, latentChannels, actFn } = config;
  const width = widthOf('encoder', encoderBlockOutChannels, numEncoderBlocks);
  const stages = numEncoderBlocks.flatMap((count, i) => [
    i === 0
      ? new Conv2d(inChannels, width, 3, { padding: 1 }, rng)
      : new Conv2d(width, width, 3, { padding: 1, stride: 2, bias: false }, rng),
    ...Array.from({ length: count }, () => new TinyBlock(width, actFn, rng)),
  ]);
  return new Layers([...stages, new Conv2d(width, latentChannels, 3, { padding: 1 }, rng)]);
}

function createDecoder(config: AutoencoderTinyConfig, rng: Generator): Layers {
  const { decoderBlockOutChannels, numDecoderBlocks, outChannels, latentChannels, actFn } = config;
  const width = widthOf('decoder', decoderBlockOutChannels, numDecoderBlocks);
  const last = numDecoderBlocks.length - 1;
  const first = [new Conv2d(latentChannels, width, 3, { padding: 1 }, rng), new Activation(actFn)];
  const stages = numDecoderBlocks.flatMap((count, i) => [
    ...Array.from({ length: count }, () => new TinyBlock(width, actFn, rng)),
    ...(i < last
      ? [new Enlarge(config.upsamplingScalingFactor), new Conv2d(width, width, 3, { padding: 1, bias: false }, rng)]
      : [new Conv2d(width, outChannels, 3, { padding: 1 }, rng)]),
  ]);
  return new Layers([...first, ...stages]);
}

/** Its convolutions keep their width, so all stages have one. */
function widthOf(part: 'encoder' | 'decoder', channels: readonly number[], blocks: readonly number[]): number {
  if (channels.length !== blocks.length || new Set(channels).size > 1)
    throw new RangeError(
      `AutoencoderTiny: ${part}BlockOutChannels [${channels}] for ${blocks.length} stages, expected one number for each, all the same`,
    );
  return channels[0];
}

/** Tiles that are laid over those before them, and come out `factor` times as large. */
function overlaid(size: number, overlap: number, factor: number): Tiles {
  const blend = Math.floor(size * overlap);
  const stride = size - blend;
  return {
    size,
    stride,
    whole: 0,
    join(rows, [n, , height, width]) {
      const larger = [height, width].map((side) => side * factor);
      if (!larger.every(Number.isInteger))
        throw new RangeError(`AutoencoderTiny: tiles of ${height}x${width}, expected multiples of ${1 / factor}`);
      const whole = zeros([n, rows[0][0].shape[1], ...larger]);
      for (const [i, row] of rows.entries())
        for (const [j, tile] of row.entries())
          layOver(whole, tile, i * stride * factor, j * stride * factor, blend * factor);
      return whole;
    },
  };
}

/** Puts a tile over what is there, fading in over `blend` rows and columns where it does not begin at the edge. */
function layOver(whole: NdArray<'float32'>, tile: NdArray<'float32'>, top: number, left: number, blend: number): void {
  const columns = tile.shape[3];
  const ramp = (from: number, k: number) => (from > 0 && blend > 1 ? Math.min(1, k / (blend - 1)) : 1);
  const across = Float32Array.from({ length: columns }, (_, x) => ramp(left, x));
  eachRow(tile, top, left, whole, (at, to, y) => {
    const down = ramp(top, y);
    for (let x = 0; x < columns; x++) {
      const opacity = down * across[x];
      whole.data[to + x] = tile.data[at + x] * opacity + whole.data[to + x] * (1 - opacity);
    }
  });
}
