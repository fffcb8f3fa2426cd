import { z } from 'zod';
import { type NdArray, ndarray } from '../array/index.js';
import { parseFields } from '../io/index.js';
import type { Generator } from '../random/index.js';
import { concat, oneHot, pad, type Tensor } from '../tensor/index.js';
import { type AutoregressiveModel, bernoulliLogLikelihood } from './autoregressive.js';
import { configFromJson, configToJson, positive } from './config.js';
import { FullyVisibleBeliefNetwork } from './fvbn.js';
import { MADE } from './made.js';
import { NADE } from './nade.js';
import { GatedPixelCNN, PixelCNN } from './pixelCnn.js';

type Shape = readonly [number, number, number];

/** A class of models, and how its fields become one. */
interface Architecture {
  /** Fields of its config. */
  readonly schema: z.ZodType;
  /** @param labels how many variables come before the picture's. */
  create(shape: Shape, config: object, labels: number, rng: Generator): AutoregressiveModel;
  /** Configs by size; `full` is about what published likelihoods were reached with. */
  readonly presets: Readonly<Record<'tiny' | 'xs' | 'full', object>>;
}
const architecture = <S extends z.ZodType>(
  schema: S,
  presets: Architecture['presets'],
  create: (shape: Shape, config: z.output<S>, labels: number, rng: Generator) => AutoregressiveModel,
): Architecture => ({
  schema,
  presets,
  create: (shape, config, labels, rng) => create(shape, parseFields('modelConfig', schema, config), labels, rng),
});

/** Autoregressive models of binary pictures by their short names. */
export const autoregressiveArchitectures = {
  fvbn: architecture(z.strictObject({}), { tiny: {}, xs: {}, full: {} }, (shape, _, __, rng) => {
    return new FullyVisibleBeliefNetwork(shape, rng);
  }),
  nade: architecture(
    z.strictObject({ hidden: positive.default(100) }),
    { tiny: { hidden: 8 }, xs: { hidden: 100 }, full: { hidden: 500 } },
    (shape, { hidden }, _, rng) => new NADE(shape, hidden, rng),
  ),
  made: architecture(
    z.strictObject({
      hiddenDims: z.array(positive).default([500]),
      maskSeed: z.number().int().min(0).default(0),
      /** Of the pixels; labels come first in any case. Halves of pictures are completed rightly in raster order only. */
      order: z.enum(['raster', 'random']).default('raster'),
    }),
    { tiny: { hiddenDims: [32] }, xs: { hiddenDims: [500] }, full: { hiddenDims: [8000] } },
    (shape, { order, ...config }, labels, rng) => {
      const leading = order === 'raster' ? shape[0] * shape[1] * shape[2] : labels;
      return new MADE(shape, { ...config, leading }, rng);
    },
  ),
  pixelcnn: architecture(
    z.strictObject({
      blocks: positive.default(15),
      channels: positive.default(32),
      headChannels: positive.default(32),
    }),
    { tiny: { blocks: 1, channels: 4, headChannels: 4 }, xs: { blocks: 5, channels: 16, headChannels: 16 }, full: {} },
    (shape, config, _, rng) => new PixelCNN(shape, config, rng),
  ),
  'gated-pixelcnn': architecture(
    z.strictObject({
      gatedLayers: positive.default(10),
      gatedChannels: positive.default(128),
      headChannels: positive.default(32),
    }),
    {
      tiny: { gatedLayers: 1, gatedChannels: 4, headChannels: 4 },
      xs: { gatedLayers: 4, gatedChannels: 16, headChannels: 16 },
      full: {},
    },
    (shape, config, _, rng) => new GatedPixelCNN(shape, config, rng),
  ),
} satisfies Record<string, Architecture>;
export type AutoregressiveName = keyof typeof autoregressiveArchitectures;
export const autoregressiveNames = Object.keys(autoregressiveArchitectures) as [
  AutoregressiveName,
  ...AutoregressiveName[],
];

export const imageDistributionConfig = z.strictObject({
  model: z.enum(autoregressiveNames),
  /** Fields of the model's own. */
  modelConfig: z.record(z.string(), z.unknown()).default({}),
  /** [channels, height, width] of a picture. */
  imageShape: z.tuple([positive, positive, positive]),
  /** Classes of a label that is modelled together with the picture; 0 for pictures alone. */
  classes: z.number().int().min(0).default(0),
});
export type ImageDistributionConfig = z.output<typeof imageDistributionConfig>;
export type ImageDistributionOptions = z.input<typeof imageDistributionConfig>;

const className = 'ImageDistribution';

/**
 * p(x) of binary pictures, or p(x, y) of pictures and labels, by an autoregressive model. A label is written one-hot into
 * rows above the picture: its variables come first, so that p(x, y) = p(y) p(x | y), and one model both draws pictures of
 * a class and classifies.
 */
export class ImageDistribution {
  readonly config: ImageDistributionConfig;
  readonly model: AutoregressiveModel;
  /** Rows above the picture that hold the label. */
  readonly labelRows: number;

  /** @throws TypeError for wrong fields, RangeError for labels beside pictures of several channels. */
  constructor(options: ImageDistributionOptions, rng: Generator) {
    const config = parseFields(className, imageDistributionConfig, options);
    const [channels, height, width] = config.imageShape;
    if (config.classes > 0 && channels > 1)
      throw new RangeError(`${className}: labels go with pictures of 1 channel, got ${channels}`);
    this.labelRows = Math.ceil(config.classes / width);
    const { schema, create } = autoregressiveArchitectures[config.model] as Architecture;
    const modelConfig = parseFields(config.model, schema, config.modelConfig) as Record<string, unknown>;
    this.config = { ...config, modelConfig };
    this.model = create([channels, this.labelRows + height, width], modelConfig, this.labelRows * width, rng);
  }

  /** From the content of config.json. @throws TypeError that names each unknown or wrong field. */
  static fromJson(json: unknown, rng: Generator): ImageDistribution {
    return new ImageDistribution(configFromJson(className, imageDistributionConfig, json), rng);
  }

  /** The content of config.json. */
  toJson(): Record<string, unknown> {
    const { _diffusers_version: _, ...json } = configToJson(className, this.config);
    return json;
  }

  /** What the model sees. @param images [N, C, H, W] of 0 and 1. @param labels int [N], for a joint model. */
  join(images: Tensor, labels?: Tensor): Tensor {
    const { labelRows, config } = this;
    if (config.classes === 0) return images;
    if (!labels) throw new TypeError(`${className}: a model of pictures and labels needs the labels`);
    const width = config.imageShape[2];
    const row = pad(oneHot(labels, config.classes), [
      [0, 0],
      [0, labelRows * width - config.classes],
    ]);
    return concat([row.reshape([-1, 1, labelRows, width]), images], 2);
  }

  /** log p(x), or log p(x, y), in nats: [N]. Arguments as for {@link join}. */
  logLikelihood(images: Tensor, labels?: Tensor): Tensor {
    const x = this.join(images, labels);
    return bernoulliLogLikelihood(this.model.forward(x), x);
  }

  /**
   * What is known of pictures to be drawn, for `sampleAutoregressive`: -1 is open.
   * @param images [N, C, H, W] of 0, 1 and -1. @param labels of each picture; without them a joint model draws them, too.
   * @throws RangeError for labels out of range or of another number, or where the model has none.
   */
  known(images: NdArray<'float32'>, labels?: readonly number[]): NdArray<'float32'> {
    const { classes, imageShape } = this.config;
    const [count, ...shape] = images.shape;
    if (`${shape}` !== `${imageShape}`)
      throw new RangeError(`${className}: images [${images.shape}], expected [N, ${imageShape.join(', ')}]`);
    if (labels && classes === 0) throw new RangeError(`${className}: this model knows no labels`);
    if (labels && labels.length !== count)
      throw new RangeError(`${className}: ${labels.length} labels, expected ${count}`);
    const odd = labels?.find((label) => !(Number.isInteger(label) && label >= 0 && label < classes));
    if (odd !== undefined) throw new RangeError(`${className}: label ${odd} out of range 0..${classes - 1}`);
    if (classes === 0) return images;
    const head = this.labelRows * imageShape[2];
    const size = images.data.length / count;
    const data = new Float32Array(count * (head + size));
    for (let n = 0; n < count; n++) {
      const at = n * (head + size);
      if (labels) data[at + labels[n]] = 1;
      else data.fill(-1, at, at + classes);
      data.set(images.data.subarray(n * size, (n + 1) * size), at + head);
    }
    return ndarray(data, [count, ...this.model.shape]);
  }

  /** The pictures of what was drawn, without rows of labels. @param drawn [N, ...model.shape] */
  pictures({ data, shape: [count] }: NdArray<'float32'>): NdArray<'float32'> {
    const [channels, height, width] = this.config.imageShape;
    const size = channels * height * width;
    const head = this.labelRows * width;
    const pictures = new Float32Array(count * size);
    for (let n = 0; n < count; n++)
      pictures.set(data.subarray(n * (head + size) + head, (n + 1) * (head + size)), n * size);
    return ndarray(pictures, [count, channels, height, width]);
  }
}
