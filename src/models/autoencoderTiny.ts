import { z } from 'zod';
import { ndarray, zeros } from '../array/index.js';
import { parseFields } from '../io/index.js';
import { Activation, type ActivationName, activate, Conv2d, Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, constant, resizeNearest, stopGradient, type Tensor } from '../tensor/index.js';
import { activation, modelConfig, positive } from './config.js';
import { eachImage, tilesOf } from './tiles.js';

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

/** Tiles that large images and latents are cut into; the result differs a little from the whole's. */
export interface TinyTiling {
  /** Side of an image's tile; default 512. */
  readonly tileSampleMinSize?: number;
  /** Side of a latent's tile; default: that of an image's, divided by how much smaller latents are. */
  readonly tileLatentMinSize?: number;
  /** Part of a tile that its neighbour overlaps; default 0.125. */
  readonly tileOverlapFactor?: number;
}

export interface AutoencoderTinyUse {
  /** Less memory for large images: work in tiles. */
  readonly tiling?: boolean | TinyTiling;
  /** Less memory for many images: work on one after the other. */
  readonly slicing?: boolean;
}

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
   * @throws RangeError for sides that are no multiples of `downsampling`, when tiled.
   */
  encode(images: Tensor, { tiling, slicing }: AutoencoderTinyUse = {}): Tensor {
    const latents = (x: Tensor) => this.encoder.forward(x.add(1).div(2));
    const { sample, overlap } = this.tileSizes(tiling);
    const whole = (x: Tensor) => (tiling ? tiled(x, latents, sample, overlap, 1 / this.downsampling) : latents(x));
    return slicing ? eachImage(images, whole) : whole(images);
  }

  /** @returns images [N, outChannels, H, W], about [-1, 1]. */
  decode(latents: Tensor, { tiling, slicing }: AutoencoderTinyUse = {}): Tensor {
    const { upsamplingScalingFactor: factor, numDecoderBlocks } = this.config;
    const images = (x: Tensor) => this.decoder.forward(x.div(3).tanh().mul(3)).mul(2).sub(1);
    const { latent, overlap } = this.tileSizes(tiling);
    const larger = factor ** (numDecoderBlocks.length - 1);
    const whole = (x: Tensor) => (tiling ? tiled(x, images, latent, overlap, larger) : images(x));
    return slicing ? eachImage(latents, whole) : whole(latents);
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

  private tileSizes(tiling: AutoencoderTinyUse['tiling']): { sample: number; latent: number; overlap: number } {
    const options = typeof tiling === 'object' ? tiling : {};
    const sample = options.tileSampleMinSize ?? 512;
    const latent = options.tileLatentMinSize ?? Math.floor(sample / this.downsampling);
    const overlap = options.tileOverlapFactor ?? 0.125;
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

/** `f` of x in overlapping tiles of a side, each laid over those before it; the result is `factor` times as large. */
function tiled(x: Tensor, f: (tile: Tensor) => Tensor, size: number, overlap: number, factor: number): Tensor {
  const [n, , height, width] = x.shape;
  const larger = [height, width].map((side) => side * factor);
  if (!larger.every(Number.isInteger))
    throw new RangeError(`AutoencoderTiny: tiles of ${height}x${width}, expected multiples of ${1 / factor}`);
  const blend = Math.floor(size * overlap);
  const stride = size - blend;
  let canvas: Tensor | undefined;
  for (const [i, row] of tilesOf(x, { size, stride }).entries())
    for (const [j, cut] of row.entries()) {
      const tile = f(cut);
      canvas ??= constant(zeros([n, tile.shape[1], larger[0], larger[1]]));
      const down = i === 0 ? undefined : ramp(tile.shape[2], blend * factor).reshape([-1, 1]);
      const across = j === 0 ? undefined : ramp(tile.shape[3], blend * factor);
      const opacity = down && across ? down.mul(across) : (down ?? across);
      canvas = laidOver(canvas, tile, i * stride * factor, j * stride * factor, opacity);
    }
  return canvas!;
}

/** From 0 to 1 over the first `blend` elements. */
const ramp = (length: number, blend: number): Tensor =>
  constant(ndarray(Float32Array.from({ length }, (_, k) => (blend > 1 ? Math.min(1, k / (blend - 1)) : 1))));

function laidOver(canvas: Tensor, tile: Tensor, top: number, left: number, opacity?: Tensor): Tensor {
  const [, , height, width] = canvas.shape;
  const [bottom, right] = [top + tile.shape[2], left + tile.shape[3]];
  const rows = canvas.slice(2, top, bottom);
  const under = rows.slice(3, left, right);
  const mixed = opacity ? tile.mul(opacity).add(under.mul(opacity.neg().add(1))) : tile;
  const row = joined([left > 0 && rows.slice(3, 0, left), mixed, right < width && rows.slice(3, right, width)], 3);
  return joined([top > 0 && canvas.slice(2, 0, top), row, bottom < height && canvas.slice(2, bottom, height)], 2);
}

const joined = (parts: readonly (Tensor | false)[], axis: number): Tensor => {
  const present = parts.filter((part) => part !== false);
  return present.length > 1 ? concat(present, axis) : present[0];
};
