import type { Module } from '../nn/index.js';
import type { Tensor } from '../tensor/index.js';

/** A model that looks at noisy images and says what is noise in them: what training and sampling work with. */
export interface Denoiser extends Module {
  /** Its config.json in camelCase, every default filled in. */
  readonly config: object;
  readonly inChannels: number;
  /** `inChannels`, or more where the variance is learned, too. */
  readonly outChannels: number;
  /** Height and width of the images it is meant for. @throws RangeError when its config does not name one side length. */
  readonly sampleSize: number;
  /** Number of classes, and the label that stands for "no class"; undefined when the model takes no labels. */
  readonly nullClass?: number;
  /**
   * @param x noisy images [N, inChannels, H, W].
   * @param timestep [N], integers or floats.
   * @param classLabels int64 [N], 0..nullClass; for a model with classes.
   * @returns [N, outChannels, H, W].
   */
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor;
}
