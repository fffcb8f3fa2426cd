import { Generator } from '../random/index.js';
import { randn, split, type Tensor } from '../tensor/index.js';

/** What an encoder knows of its latents: a normal distribution for each element, independent of one another. */
export class DiagonalGaussian {
  /** [N, C, H, W], also the most likely latents. */
  readonly mean: Tensor;
  /** Logarithm of the variance, within -30..20. */
  readonly logvar: Tensor;
  readonly std: Tensor;
  readonly variance: Tensor;

  /** @param moments mean and logarithm of the variance, one after the other as channels [N, 2 C, H, W]. */
  constructor(readonly moments: Tensor) {
    const [mean, logvar] = split(moments, 2, 1);
    this.mean = mean;
    this.logvar = logvar.clamp(-30, 20);
    this.std = this.logvar.mul(0.5).exp();
    this.variance = this.logvar.exp();
  }

  /** @param noise standard normal numbers of the mean's shape, or what they are drawn from at each call. */
  sample(noise: Tensor | Generator): Tensor {
    return this.mean.add(this.std.mul(noise instanceof Generator ? randn(this.mean.shape, noise) : noise));
  }

  mode(): Tensor {
    return this.mean;
  }

  /** Kullback-Leibler divergence [N] from `other`; by default from the standard normal distribution. */
  kl(other?: DiagonalGaussian): Tensor {
    const ratio = other ? this.variance.div(other.variance) : this.variance;
    const distance = other ? this.mean.sub(other.mean).square().div(other.variance) : this.mean.square();
    const logRatio = other ? this.logvar.sub(other.logvar) : this.logvar;
    return perImage(distance.add(ratio).sub(1).sub(logRatio)).mul(0.5);
  }

  /** Negative log-likelihood [N] of latents of the mean's shape. */
  nll(latents: Tensor): Tensor {
    const distance = latents.sub(this.mean).square().div(this.variance);
    return perImage(distance.add(this.logvar).add(Math.log(2 * Math.PI))).mul(0.5);
  }
}

const perImage = (x: Tensor): Tensor => x.sum([1, 2, 3]);
