import { ndarray } from '../array/index.js';
import { batches, type Dataset } from '../data/index.js';
import type { AdaINNet, StyleEncoder } from '../models/index.js';
import { type CompileOptions, compile, concat, gradients, type Tensor } from '../tensor/index.js';
import { adamW } from './optimizer.js';

/** Images of a data set, [N, 1 or 3, H, W] in [-1, 1], as AdaIN's net takes them: RGB in [0, 1]. */
const styleImages = (images: Tensor): Tensor => {
  const scaled = images.add(1).mul(0.5);
  return images.shape[1] === 1 ? concat([scaled, scaled, scaled], 1) : scaled;
};

/**
 * Rescales every layer so that its mean activation over these images is 1, which leaves the features the same but for
 * their scale (Gatys, Ecker & Bethge 2016, section 2). What the loss weights are made for: do it to a VGG from elsewhere.
 * @param count of images to look at; default 64.
 */
export async function normalizeActivations(
  encoder: StyleEncoder,
  dataset: Dataset,
  { count = 64, compile: options }: { readonly count?: number; readonly compile?: CompileOptions } = {},
): Promise<void> {
  const run = compile(
    (images: Tensor) => encoder.activations(styleImages(images)).map((activation) => activation.mean()),
    options,
  );
  const batch = Math.min(8, dataset.length);
  const sums = encoder.layers.map(() => 0);
  let seen = 0;
  try {
    for await (const { images } of batches(dataset, { batch, epochs: 1 })) {
      const means = await run(images);
      for (const [i, mean] of means.entries()) sums[i] += Number(mean.data[0]);
      if (++seen * batch >= count) break;
    }
  } finally {
    await run.release();
  }
  let before = 1;
  for (const [i, { weight, bias }] of encoder.layers.entries()) {
    const mean = sums[i] / seen;
    if (!(mean > 0)) throw new Error(`normalizeActivations: layer ${i} is zero on all images`);
    weight.set(
      ndarray(
        Float32Array.from(weight.value.data as Float32Array, (x) => (x * before) / mean),
        weight.shape,
      ),
    );
    bias!.set(
      ndarray(
        Float32Array.from(bias!.value.data as Float32Array, (x) => x / mean),
        bias!.shape,
      ),
    );
    before = mean;
  }
}

export interface StyleTrainingOptions {
  /** Default 1000; the paper's 160,000. */
  readonly steps?: number;
  /** Pairs of a content and a style; default 8. */
  readonly batch?: number;
  /** Default 1e-4. */
  readonly learningRate?: number;
  /** The rate at step n is learningRate / (1 + learningRateDecay n); default 5e-5. */
  readonly learningRateDecay?: number;
  /** Default 1. */
  readonly contentWeight?: number;
  /** Default 10. */
  readonly styleWeight?: number;
  readonly seed?: number;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
}

export interface StyleEvent {
  /** 1..steps. */
  readonly step: number;
  readonly steps: number;
  /** The weighted sum of the two others. */
  readonly loss: number;
  readonly contentLoss: number;
  readonly styleLoss: number;
  readonly images: number;
  readonly milliseconds: number;
}

/**
 * Trains a net's decoder with Adam, its encoder being kept as it is (Huang & Belongie 2017, section 5), one event per step.
 * @throws AbortError when the signal fires; RangeError when either data set has fewer images than a batch.
 */
export async function* trainStyle(
  net: AdaINNet,
  contents: Dataset,
  styles: Dataset,
  options: StyleTrainingOptions = {},
): AsyncGenerator<StyleEvent, void, undefined> {
  const { steps = 1000, batch = 8, learningRate = 1e-4, learningRateDecay = 5e-5, seed = 0, signal } = options;
  const { contentWeight = 1, styleWeight = 10 } = options;
  const parameters = net.decoder.namedParameters();
  const optimizer = adamW(parameters, { weightDecay: 0 });
  const update = compile((content: Tensor, style: Tensor, numbers: readonly Tensor[]) => {
    const losses = net.losses(styleImages(content), styleImages(style));
    const loss = losses.content.mul(contentWeight).add(losses.style.mul(styleWeight));
    optimizer.update(gradients(loss, [...parameters.values()]), numbers);
    return { loss, contentLoss: losses.content, styleLoss: losses.style };
  }, options.compile);

  const ofStyles = batches(styles, { batch, seed: seed + 1 });
  let step = 0;
  let began = performance.now();
  try {
    for await (const { images } of batches(contents, { batch, seed, flip: true })) {
      signal?.throwIfAborted();
      const style = await ofStyles.next();
      if (style.done) return;
      const rate = learningRate / (1 + learningRateDecay * step);
      const numbers = optimizer.hyperparameters(step + 1, rate).map((x) => ndarray([x], []));
      const { loss, contentLoss, styleLoss } = await update(images, style.value.images, numbers);
      step++;
      const now = performance.now();
      yield {
        step,
        steps,
        loss: Number(loss.data[0]),
        contentLoss: Number(contentLoss.data[0]),
        styleLoss: Number(styleLoss.data[0]),
        images: batch,
        milliseconds: now - began,
      };
      began = now;
      if (step >= steps) return;
    }
  } finally {
    await ofStyles.return();
    await update.release();
  }
}
