import type { Generator } from '../random/index.js';
import { resizeNearest, type Tensor } from '../tensor/index.js';
import { Conv2d } from './conv2d.js';
import { GroupNorm } from './groupNorm.js';
import { Module } from './module.js';

/** Group norm whose scale and shift at each position come from a latent map (MoVQ, Zheng et al. 2022). */
export class SpatialNorm extends Module {
  readonly normLayer: GroupNorm;
  readonly convY: Conv2d;
  readonly convB: Conv2d;

  constructor(channels: number, latentChannels: number, rng: Generator) {
    super();
    this.normLayer = new GroupNorm(32, channels, { eps: 1e-6 });
    this.convY = new Conv2d(latentChannels, channels, 1, {}, rng);
    this.convB = new Conv2d(latentChannels, channels, 1, {}, rng);
  }

  /** @param f features [N, C, H, W]. @param latent [N, latentChannels, h, w] of any size. */
  forward(f: Tensor, latent: Tensor): Tensor {
    const map = resizeNearest(latent, [f.shape[2], f.shape[3]]);
    return this.normLayer.forward(f).mul(this.convY.forward(map)).add(this.convB.forward(map));
  }
}
