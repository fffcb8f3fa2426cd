import { z } from 'zod';
import { parseFields } from '../io/index.js';
import {
  ActNorm,
  DiagonalNormal,
  EvenOdd,
  Flattened,
  type Flow,
  FlowModel,
  FlowSequence,
  Glow,
  Inverted,
  Logit,
  MaskedAutoregressiveFlow,
  NICE,
  OdeNet,
  odeLayerTypes,
  PlanarFlow,
  RadialFlow,
  RealNVP,
  Reverse,
  StandardLogistic,
} from '../models/index.js';
import { isTraining, trainingGenerator } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { SteppedFlow } from './continuousFlow.js';

type Shape = readonly [channels: number, height: number, width: number];

/** A class of flows of images, and how its fields become one. */
interface FlowArchitecture {
  /** Fields of its config, {@link ImageFlowFields} among them. */
  readonly schema: z.ZodType<ImageFlowFields>;
  /** Configs by size; `full` is about what published likelihoods were reached with. */
  readonly presets: Readonly<Record<'tiny' | 'xs' | 'full', object>>;
  /** Latents of the logistic distribution in place of the normal one. */
  readonly logistic?: boolean;
  /** @param probes draws Hutchinson's noise outside training. */
  create(shape: Shape, config: ImageFlowFields, rng: Generator, probes: Generator): Flow;
}

/** What the config of every flow of images has. */
interface ImageFlowFields {
  /** Share of 0..1 that stays free at each end before logits are taken; 0 for no logits. */
  readonly alpha: number;
  /** Begin with an actnorm of each value, so that the flow does not have to learn where pixels lie. */
  readonly normalize: boolean;
}

const count = z.number().int().positive();
/** Config fields. MAF and FFJORD take alpha 1e-6 on MNIST; NICE had no logits, and its scales then grow for very long. */
const fields = <S extends z.ZodRawShape>(shape: S) =>
  z.strictObject({
    alpha: z.number().min(0).lt(0.5).default(1e-6),
    normalize: z.boolean().default(true),
    ...shape,
  });

const architecture = <S extends z.ZodType<ImageFlowFields>>(
  schema: S,
  presets: FlowArchitecture['presets'],
  create: (shape: Shape, config: z.output<S>, rng: Generator, probes: Generator) => Flow,
  options: Pick<FlowArchitecture, 'logistic'> = {},
): FlowArchitecture => ({ schema, presets, create: create as FlowArchitecture['create'], ...options });

/** Of masked networks: fewer units than pixels see them all only by chance. */
const masks = { residual: false, randomMask: true };

const sizeOf = ([channels, height, width]: Shape): number => channels * height * width;

/** Flows of images by their short names. */
export const flowArchitectures = {
  // Backwards, so that likelihoods have planes in closed form and only samples solve for them.
  planar: architecture(
    fields({ layers: count.default(64), activation: z.enum(['tanh', 'leaky_relu']).default('tanh') }),
    { tiny: { layers: 2 }, xs: { layers: 32 }, full: {} },
    (shape, { layers, activation }, rng) =>
      new FlowSequence(Array.from({ length: layers }, () => new Inverted(new PlanarFlow(shape, { activation }, rng)))),
  ),
  radial: architecture(
    fields({ layers: count.default(64) }),
    { tiny: { layers: 2 }, xs: { layers: 32 }, full: {} },
    (shape, { layers }, rng) => new FlowSequence(Array.from({ length: layers }, () => new RadialFlow(shape, rng))),
  ),
  nice: architecture(
    fields({ couplings: count.default(4), hiddenLayers: count.default(5), hiddenFeatures: count.default(1000) }),
    { tiny: { hiddenLayers: 1, hiddenFeatures: 16 }, xs: { hiddenLayers: 3, hiddenFeatures: 500 }, full: {} },
    (shape, config, rng) => new FlowSequence<Flow>([new EvenOdd(), new NICE(sizeOf(shape), config, rng)]),
    { logistic: true },
  ),
  realnvp: architecture(
    fields({ scales: count.default(2), midChannels: count.default(64), blocks: count.default(8) }),
    { tiny: { scales: 1, midChannels: 4, blocks: 1 }, xs: { midChannels: 16, blocks: 1 }, full: {} },
    ([inChannels], config, rng) => new RealNVP({ inChannels, ...config }, rng),
  ),
  maf: architecture(
    fields({ layers: count.default(5), hiddenFeatures: count.default(1000), blocks: count.default(1) }),
    { tiny: { layers: 2, hiddenFeatures: 48 }, xs: { layers: 3, hiddenFeatures: 500 }, full: {} },
    (shape, { layers, hiddenFeatures, blocks }, rng) =>
      new FlowSequence<Flow>(
        Array.from({ length: layers }, (_, i) => [
          ...(i > 0 ? [new ActNorm(shape)] : []),
          new Flattened(new MaskedAutoregressiveFlow(sizeOf(shape), { ...masks, hiddenFeatures, blocks }, rng)),
          new Reverse(),
        ]).flat(),
      ),
  ),
  glow: architecture(
    fields({ midChannels: count.default(512), levels: count.default(2), steps: count.default(32) }),
    { tiny: { midChannels: 4, levels: 1, steps: 1 }, xs: { midChannels: 64, steps: 6 }, full: {} },
    ([inChannels], config, rng) => new Glow({ inChannels, ...config }, rng),
  ),
  ffjord: architecture(
    fields({
      /** Channels of the convolutions between the first and the last one. */
      hiddenDims: z.array(count).default([64, 64, 64]),
      layerType: z.enum(odeLayerTypes).default('concat'),
      /** Times that images are squeezed for the convolutions. */
      squeezes: z.number().int().min(0).default(1),
      /** Flows one after the other. */
      blocks: count.default(2),
      /** Of the solver, in each flow. */
      method: z.enum(['euler', 'midpoint', 'heun2', 'heun3', 'rk4']).default('rk4'),
      steps: count.default(4),
    }),
    { tiny: { hiddenDims: [4], blocks: 1, steps: 1 }, xs: { hiddenDims: [32, 32], blocks: 1, steps: 6 }, full: {} },
    ([channels], { hiddenDims, layerType, squeezes, blocks, method, steps }, rng, probes) => {
      const inputShape = [channels * 4 ** squeezes];
      const strides = Array.from({ length: hiddenDims.length + 1 }, () => 1 as const);
      const net = { inputShape, hiddenDims, strides, layerType, squeezes };
      const noise = () => (isTraining() ? trainingGenerator('ffjord') : probes);
      return new FlowSequence<Flow>(
        Array.from({ length: blocks }, () => new SteppedFlow(new OdeNet(net, rng), { method, steps, rng: noise })),
      );
    },
  ),
} satisfies Record<string, FlowArchitecture>;
export type FlowName = keyof typeof flowArchitectures;
export const flowNames = Object.keys(flowArchitectures) as [FlowName, ...FlowName[]];

export const imageFlowConfig = z.strictObject({
  model: z.enum(flowNames),
  /** Fields of the flow's own. */
  modelConfig: z.record(z.string(), z.unknown()).default({}),
  /** [channels, height, width] of a picture. */
  imageShape: z.tuple([count, count, count]),
});
export type ImageFlowConfig = z.output<typeof imageFlowConfig>;
export type ImageFlowOptions = z.input<typeof imageFlowConfig>;

/**
 * p(x) of pictures by a normalizing flow: values in 0..1, of which `dequantize` makes a continuum, go through logits
 * (where `alpha` is above 0), an actnorm of each value and the flow to latents of the pictures' shape. The latents' normal distribution has a
 * trained mean and spread for each; NICE's is the logistic one.
 */
export class ImageFlow {
  readonly config: ImageFlowConfig;
  readonly model: FlowModel;

  /**
   * @param rng of the first weights.
   * @param probes draws the noise of FFJORD's trace outside training.
   * @throws TypeError for wrong fields, RangeError for fields that do not fit together.
   */
  constructor(options: ImageFlowOptions, rng: Generator, probes = new Generator(0)) {
    const config = parseFields('ImageFlow', imageFlowConfig, options);
    const { schema, create, logistic }: FlowArchitecture = flowArchitectures[config.model];
    const modelConfig = parseFields(config.model, schema, config.modelConfig);
    this.config = { ...config, modelConfig: { ...modelConfig } };
    const { alpha, normalize } = modelConfig;
    const flows: Flow[] = [create(config.imageShape, modelConfig, rng, probes)];
    if (normalize) flows.unshift(new ActNorm(config.imageShape));
    if (alpha > 0) flows.unshift(new Logit(1 - 2 * alpha));
    this.model = new FlowModel(
      logistic ? new StandardLogistic(config.imageShape) : new DiagonalNormal(config.imageShape),
      new FlowSequence(flows),
    );
  }
}
