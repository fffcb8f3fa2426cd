import type { NdArray } from '../array/index.js';
import { DiagonalGaussian, piecewise, type Tiles, type Tiling } from '../models/index.js';
import type { Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';

/** What {@link AutoencoderKL} and {@link AutoencoderTiny} have in common. */
export interface Autoencoder extends Module {
  readonly config: { readonly latentChannels: number };
  /** How many pixels of a side one of the latents stands for. */
  readonly downsampling: number;
  encode(images: Tensor): DiagonalGaussian | Tensor;
  decode(latents: Tensor): Tensor;
  encoderTiles(tiling?: Tiling): Tiles;
  decoderTiles(tiling?: Tiling): Tiles;
  /** To about unit variance, and back. */
  scaleLatents(latents: Tensor): Tensor;
  latentsFrom(scaled: Tensor): Tensor;
}

export interface AutoencoderUse {
  /** Less memory for large images: work in tiles. */
  readonly tiling?: boolean | Tiling;
  /** Less memory for many images: work on one after the other. */
  readonly slicing?: boolean;
}

/** The space that a latent diffusion model works in: an autoencoder's latents, shifted and scaled to about unit variance. */
export class LatentSpace {
  /** Large images in tiles, many one by one: less memory. */
  use: AutoencoderUse = {};

  constructor(readonly vae: Autoencoder) {}

  get channels(): number {
    return this.vae.config.latentChannels;
  }
  get factor(): number {
    return this.vae.downsampling;
  }

  /**
   * @param images [N, 3, H, W] in [-1, 1].
   * @param rng draws from the distribution that the encoder gives, as diffusers does; without it, its mode.
   * @returns [N, channels, H / factor, W / factor].
   */
  async encode(images: NdArray<'float32'>, rng?: Generator, options?: CompileOptions): Promise<NdArray<'float32'>> {
    const [n, , height, width] = images.shape;
    const noise = rng?.randn([n, this.channels, height / this.factor, width / this.factor]);
    const { tiling, slicing } = this.use;
    const tiles = tiling ? this.vae.encoderTiles(tiling === true ? {} : tiling) : undefined;
    const encode = (x: Tensor) => {
      const encoded = this.vae.encode(x);
      return encoded instanceof DiagonalGaussian ? encoded.moments : encoded;
    };
    const encoded = await piecewise(images, encode, { tiles, slicing }, options);
    const isDistribution = encoded.shape[1] === 2 * this.channels;
    const f = compile((inputs: { x: Tensor; noise?: Tensor }) => {
      const latents = isDistribution ? drawn(new DiagonalGaussian(inputs.x), inputs.noise) : inputs.x;
      return this.vae.scaleLatents(latents);
    }, options);
    const latents = await f(noise ? { x: encoded, noise } : { x: encoded }).finally(() => f.release());
    return latents as NdArray<'float32'>;
  }

  /** @param latents as the model sees them [N, channels, h, w]. @returns [N, 3, h factor, w factor], in about [-1, 1]. */
  async decode(latents: NdArray<'float32'>, options?: CompileOptions): Promise<NdArray<'float32'>> {
    const { tiling, slicing } = this.use;
    const tiles = tiling ? this.vae.decoderTiles(tiling === true ? {} : tiling) : undefined;
    const decoded = (z: Tensor) => this.vae.decode(this.vae.latentsFrom(z));
    return piecewise(latents, decoded, { tiles, slicing }, options);
  }
}

const drawn = (latents: DiagonalGaussian, noise?: Tensor): Tensor => (noise ? latents.sample(noise) : latents.mode());
