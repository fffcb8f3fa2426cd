import type { Generator } from '../random/index.js';
import { avgPool2d, resizeNearest, type Tensor } from '../tensor/index.js';
import { Conv2d } from './conv2d.js';
import { ConvTranspose2d } from './convTranspose2d.js';
import { LayerNorm } from './layerNorm.js';
import { Module } from './module.js';
import { RMSNorm } from './rmsNorm.js';

interface ResampleConfig {
  readonly channels: number;
  /** Default `channels`. */
  readonly outChannels?: number;
  /** A convolution after (up) or in place of (down) the plain resampling. */
  readonly useConv?: boolean;
  /** Default 3, or 4 for a transposed convolution. */
  readonly kernelSize?: number;
  /** Default 1. */
  readonly padding?: number;
  readonly bias?: boolean;
  /** A norm over the channels before. */
  readonly normType?: 'ln_norm' | 'rms_norm';
  readonly eps?: number;
  /** Weights of that norm; default false, as in diffusers. */
  readonly elementwiseAffine?: boolean;
}

export interface Upsample2DConfig extends ResampleConfig {
  readonly useConvTranspose?: boolean;
  /** false: convolve only. */
  readonly interpolate?: boolean;
}

/** Doubles an image [N, C, H, W] by repeating pixels, then convolves. */
export class Upsample2D extends Module {
  readonly norm?: LayerNorm | RMSNorm;
  readonly conv?: Conv2d | ConvTranspose2d;

  constructor(
    readonly config: Upsample2DConfig,
    rng: Generator,
  ) {
    super();
    const { channels, outChannels = channels, padding = 1, bias, kernelSize } = config;
    this.norm = createNorm(config);
    if (config.useConvTranspose)
      this.conv = new ConvTranspose2d(channels, outChannels, kernelSize ?? 4, { stride: 2, padding, bias }, rng);
    else if (config.useConv) this.conv = new Conv2d(channels, outChannels, kernelSize ?? 3, { padding, bias }, rng);
  }

  /** @param size of the result before the convolution, [height, width]: that of an odd-sized skip connection. */
  forward(x: Tensor, size: readonly [number, number] = [2 * x.shape[2], 2 * x.shape[3]]): Tensor {
    const { interpolate = true, useConvTranspose = false } = this.config;
    const normed = overChannels(this.norm, x);
    const larger = interpolate && !useConvTranspose ? resizeNearest(normed, size) : normed;
    return this.conv ? this.conv.forward(larger) : larger;
  }
}

/** Halves an image [N, C, H, W] by a strided convolution, or by averaging. */
export class Downsample2D extends Module {
  readonly norm?: LayerNorm | RMSNorm;
  readonly conv?: Conv2d;

  /** @param config `padding` 0 pads the right and the bottom edge by 1, as in Stable Diffusion's VAE. */
  constructor(config: ResampleConfig, rng: Generator) {
    super();
    const { channels, outChannels = channels, padding = 1, bias, kernelSize = 3 } = config;
    this.norm = createNorm(config);
    if (!config.useConv && outChannels !== channels)
      throw new RangeError(`Downsample2D: averaging keeps ${channels} channels, expected useConv for ${outChannels}`);
    const edges =
      padding === 0
        ? ([
            [0, 1],
            [0, 1],
          ] as const)
        : padding;
    if (config.useConv)
      this.conv = new Conv2d(channels, outChannels, kernelSize, { stride: 2, padding: edges, bias }, rng);
  }

  forward(x: Tensor): Tensor {
    const normed = overChannels(this.norm, x);
    if (this.conv) return this.conv.forward(normed);
    const [height, width] = [x.shape[2], x.shape[3]].map((size) => size - (size % 2));
    return avgPool2d(normed.slice(2, 0, height).slice(3, 0, width));
  }
}

function createNorm(config: ResampleConfig): LayerNorm | RMSNorm | undefined {
  const { normType, channels, eps, elementwiseAffine: affine = false } = config;
  if (!normType) return undefined;
  if (normType === 'ln_norm') return new LayerNorm(channels, { eps, affine });
  if (normType === 'rms_norm') return new RMSNorm(channels, { eps, affine });
  throw new RangeError(`resampling: normType '${normType}', expected ln_norm or rms_norm`);
}

const overChannels = (norm: LayerNorm | RMSNorm | undefined, x: Tensor): Tensor =>
  norm ? norm.forward(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2]) : x;
