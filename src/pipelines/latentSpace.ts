import type { NdArray } from '../array/index.js';
import { type AutoencoderUse, DiagonalGaussian } from '../models/index.js';
import type { Module } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';

/** What {@link AutoencoderKL} and {@link AutoencoderTiny} have in common. */
export interface Autoencoder extends Module {
  readonly config: { readonly latentChannels: number };
  /** How many pixels of a side one of the latents stands for. */
  readonly downsampling: number;
  encode(images: Tensor, use?: AutoencoderUse): DiagonalGaussian | Tensor;
  decode(latents: Tensor, use?: AutoencoderUse): Tensor;
  /** To about unit variance, and back. */
  scaleLatents(latents: Tensor): Tensor;
  latentsFrom(scaled: Tensor): Tensor;
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
    const run = (x: Tensor, drawn?: Tensor) => {
      const encoded = this.vae.encode(x, this.use);
      const latents = encoded instanceof DiagonalGaussian ? (drawn ? encoded.sample(drawn) : encoded.mode()) : encoded;
      return this.vae.scaleLatents(latents);
    };
    const f = compile((inputs: { x: Tensor; noise?: Tensor }) => run(inputs.x, inputs.noise), {
      freeze: true,
      ...options,
    });
    const latents = await f(noise ? { x: images, noise } : { x: images }).finally(() => f.release());
    return latents as NdArray<'float32'>;
  }

  /** @param latents as the model sees them [N, channels, h, w]. @returns [N, 3, h factor, w factor], in about [-1, 1]. */
  async decode(latents: NdArray<'float32'>, options?: CompileOptions): Promise<NdArray<'float32'>> {
    const f = compile((z: Tensor) => this.vae.decode(this.vae.latentsFrom(z), this.use), { freeze: true, ...options });
    return (await f(latents).finally(() => f.release())) as NdArray<'float32'>;
  }
}
