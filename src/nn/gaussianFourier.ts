import { ndarray } from '../array/index.js';
import type { Generator } from '../random/index.js';
import { concat, type Tensor, type Variable } from '../tensor/index.js';
import { buffer, Module } from './module.js';

export interface GaussianFourierConfig {
  /** Half the width of the result; default 256. */
  readonly embeddingSize?: number;
  /** Standard deviation of the frequencies; default 1. */
  readonly scale?: number;
  /** Embed the logarithm; default true. */
  readonly log?: boolean;
  /** cos before sin; default false. */
  readonly flipSinToCos?: boolean;
}

/** Noise levels [N] to sinusoids of random fixed frequencies [N, 2 * embeddingSize] (Song et al. 2021). */
export class GaussianFourierProjection extends Module {
  readonly weight: Variable;

  constructor(
    readonly config: GaussianFourierConfig,
    rng: Generator,
  ) {
    super();
    const { embeddingSize = 256, scale = 1 } = config;
    rng.randn([embeddingSize]); // diffusers draws them twice and keeps the second
    const { data } = rng.randn([embeddingSize]);
    this.weight = buffer(ndarray(data.map((x) => x * scale)));
  }

  forward(x: Tensor): Tensor {
    const { log = true, flipSinToCos = false } = this.config;
    // In diffusers' order, as the angles are so large that their rounding shows.
    const angles = (log ? x.log() : x).unsqueeze(1).mul(this.weight).mul(2).mul(Math.PI);
    const [sin, cos] = [angles.sin(), angles.cos()];
    return concat(flipSinToCos ? [cos, sin] : [sin, cos], 1);
  }
}
