import { z } from 'zod';
import { ndarray } from '../array/index.js';
import { type BatchOptions, batches, type Dataset, readBatch } from '../data/index.js';
import { type AdaINNet, rgbImages, type StyleEncoder } from '../models/index.js';
import { type CompileOptions, compile, concat, type Tensor } from '../tensor/index.js';
import { learningFields, pictureFields } from './config.js';
import type { LearningBatch } from './learning.js';
import type { Learner } from './step.js';

const count = z.number().int().positive();

/** Everything that determines the training of a style transfer's decoder: its run.json, and what `train-style` takes. */
export const styleTraining = z.strictObject({
  kind: z.literal('style-transfer').default('style-transfer'),
  /** Data sets of the pictures to be stylized and of the styles. */
  content: z.string(),
  style: z.string(),
  /** style teaches the decoder to paint; reconstruction makes an encoder, teaching both to give pictures back. */
  objective: z.enum(['style', 'reconstruction']).default('style'),
  /** A VGG's weights, or a net with a decoder to begin from, as styleNetWithEncoder takes them; without it they are random. */
  encoder: z.string().optional(),
  /** Of the four levels, when the encoder's weights are random. */
  channels: z.tuple([count, count, count, count]).default([16, 32, 64, 128]),
  /** The same. */
  pooling: z.enum(['max', 'average']).default('max'),
  contentWeight: z.number().min(0).default(1),
  styleWeight: z.number().min(0).default(10),
  /** Of the pixels' mean square error where a content's style is its own (Park & Lee 2019, there also of features). */
  identityWeight: z.number().min(0).default(0),
  ...learningFields,
  flip: pictureFields.flip,
  skipCorrupt: pictureFields.skipCorrupt,
  size: z.number().int().min(9).default(128),
  steps: count.default(1000),
  batch: count.default(8),
  learningRate: z.number().positive().default(1e-4),
  weightDecay: z.number().min(0).default(0),
});
export type StyleTraining = z.output<typeof styleTraining>;
export type StyleTrainingOptions = z.input<typeof styleTraining>;

/**
 * Rescales every layer so that its mean activation over these images is 1, which leaves the features the same but for
 * their scale (Gatys, Ecker & Bethge 2016, section 2). What the loss weights are made for: do it to a VGG from elsewhere.
 * @param count of images to look at; default 64.
 * @returns what relu4_1 was divided by.
 */
export async function normalizeActivations(
  encoder: StyleEncoder,
  dataset: Dataset,
  { count = 64, compile: options }: { readonly count?: number; readonly compile?: CompileOptions } = {},
): Promise<number> {
  const run = compile(
    (images: Tensor) => encoder.activations(rgbImages(images)).map((activation) => activation.mean()),
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
  return before;
}

/**
 * Teaches encoder and decoder together to give contents and styles back, by mean square error of pixels: an encoder that
 * keeps shapes and colours, where there is no VGG-19. Batches are of {@link styleBatches}.
 */
export const reconstructionLearner = (net: AdaINNet): Learner => ({
  parameters: net.namedParameters(),
  prepare: (batch) => batch,
  loss: ({ contents, styles }) => reconstructionError(net, rgbImages(concat([contents, styles], 0))),
});

function reconstructionError(net: AdaINNet, images: Tensor): Tensor {
  const [, , height, width] = images.shape;
  const made = net.decoder.forward(net.encoder.forward(images));
  return made.slice(2, 0, height).slice(3, 0, width).sub(images).square().mean();
}

/** Teaches a net's decoder, its encoder being kept as it is (Huang & Belongie 2017, section 5). Batches are of {@link styleBatches}. */
export function styleLearner(
  net: AdaINNet,
  {
    contentWeight = 1,
    styleWeight = 10,
    identityWeight = 0,
  }: { readonly contentWeight?: number; readonly styleWeight?: number; readonly identityWeight?: number } = {},
): Learner {
  return {
    parameters: new Map([...net.namedParameters()].filter(([name]) => name.startsWith('decoder.'))),
    prepare: (batch) => batch,
    loss({ contents, styles }) {
      const { content, style } = net.losses(rgbImages(contents), rgbImages(styles));
      const painting = content.mul(contentWeight).add(style.mul(styleWeight));
      if (identityWeight === 0) return painting;
      return painting.add(reconstructionError(net, rgbImages(contents)).mul(identityWeight));
    },
  };
}

/**
 * Pairs of a content and a style, each data set in an order of its own.
 * @param options of the contents; the styles are where as many batches take them.
 * @throws RangeError when either data set has fewer images than a batch.
 */
export async function* styleBatches(
  contents: Dataset,
  styles: Dataset,
  options: BatchOptions,
): AsyncGenerator<LearningBatch, void, undefined> {
  const { batch, seed = 0, position = { epoch: 0, index: 0 } } = options;
  const done = position.epoch * Math.floor(contents.length / batch) + Math.floor(position.index / batch);
  const each = Math.max(1, Math.floor(styles.length / batch));
  const stylePosition = { epoch: Math.floor(done / each), index: (done % each) * batch };
  const ofStyles = batches(styles, { ...options, seed: seed + 1, position: stylePosition, epochs: undefined });
  try {
    for await (const { images, next } of batches(contents, options)) {
      const style = await ofStyles.next();
      if (style.done) return;
      yield { arrays: { contents: images, styles: style.value.images }, next };
    }
  } finally {
    await ofStyles.return();
  }
}

export interface StyleLossReport {
  readonly contentLoss: number;
  readonly styleLoss: number;
}

/** Both losses, unweighted, over the first pairs of two data sets. @param count of pairs; default 32. */
export async function styleLosses(
  net: AdaINNet,
  contents: Dataset,
  styles: Dataset,
  { count = 32, compile: options }: { readonly count?: number; readonly compile?: CompileOptions } = {},
): Promise<StyleLossReport> {
  const run = compile(
    (content: Tensor, style: Tensor) => {
      const losses = net.losses(rgbImages(content), rgbImages(style));
      return { content: losses.content, style: losses.style };
    },
    { freeze: true, ...options },
  );
  const pairs = Math.min(count, contents.length, styles.length);
  let [contentLoss, styleLoss] = [0, 0];
  try {
    for (let i = 0; i < pairs; i++) {
      const [content, style] = await Promise.all([contents, styles].map((set) => readBatch(set, Int32Array.of(i))));
      const losses = await run(content.images, style.images);
      contentLoss += Number(losses.content.data[0]) / pairs;
      styleLoss += Number(losses.style.data[0]) / pairs;
    }
  } finally {
    await run.release();
  }
  return { contentLoss, styleLoss };
}
