import type { NdArray } from '../../array/index.js';
import { Module } from '../../nn/index.js';
import { softplus, type Tensor } from '../../tensor/index.js';
import { type Flow, type FromLatent, sumPerSample, type ToLatent } from './flow.js';

/**
 * Uniform dequantisation (Theis et al. 2016): pixels k / 255 become (k + u) / 256, a density that bounds the
 * probability of the pixels from below.
 * @param x [N, ...] in 0..1. @param noise u in [0, 1), as x.
 */
export const dequantize = (x: Tensor, noise: Tensor): Tensor => x.mul(255).add(noise).div(256);

/** @throws RangeError for pixels outside 0..1, which have no likelihood. */
export function checkPixels(name: string, images: NdArray): void {
  const data = images.data as Float32Array;
  const at = data.findIndex((value) => !(value >= 0 && value <= 1));
  if (at >= 0) throw new RangeError(`${name}: pixel ${data[at]} at element ${at}, expected 0..1`);
}

/**
 * From densities to what compressing a pixel's value takes: -log₂ of the probability of an image, per value.
 * @param logProb in nats, [N], of dequantised images in 0..1.
 * @param dims values in an image (channels · height · width). @param levels of a value; default 256.
 */
export const bitsPerDim = (logProb: Tensor, dims: number, levels = 256): Tensor =>
  logProb
    .neg()
    .add(dims * Math.log(levels))
    .div(dims * Math.LN2);

/** Logits of values in 0..1, drawn towards the middle so that 0 and 1 stay finite (Dinh et al. 2017, section 4.1). */
export class Logit extends Module implements Flow {
  /** @param constraint share of 0..1 that is used; default 0.9. @throws RangeError when it is not within 0..1. */
  constructor(readonly constraint = 0.9) {
    super();
    if (!(constraint > 0 && constraint < 1)) throw new RangeError(`Logit: constraint ${constraint}, expected 0..1`);
  }

  forward(x: Tensor): ToLatent {
    const p = x.mul(2).sub(1).mul(this.constraint).add(1).div(2);
    const z = p.log().sub(p.neg().add(1).log());
    return { z, logDet: this.#logDet(z) };
  }

  inverse(z: Tensor): FromLatent {
    const x = z.sigmoid().mul(2).sub(1).div(this.constraint).add(1).div(2);
    return { x, logDet: this.#logDet(z).neg() };
  }

  #logDet(z: Tensor): Tensor {
    return sumPerSample(softplus(z).add(softplus(z.neg())).add(Math.log(this.constraint)));
  }
}
