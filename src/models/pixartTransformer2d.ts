import { z } from 'zod';
import { parseFields } from '../io/index.js';
import {
  AdaLayerNormSingle,
  BasicTransformerBlock,
  Linear,
  Module,
  modulate,
  PatchEmbed,
  parameter,
  TextProjection,
} from '../nn/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { normalize, split, type Tensor, type Variable } from '../tensor/index.js';
import { modelConfig, positive } from './config.js';
import { fromPatches } from './patches.js';

/** The fields of diffusers' PixArtTransformer2DModel. */
export const pixartConfig = modelConfig({
  numAttentionHeads: positive.default(16),
  attentionHeadDim: positive.default(72),
  inChannels: positive.default(4),
  /** null: `inChannels`. Twice as many when the variance is learned, too. */
  outChannels: positive.nullable().default(8),
  numLayers: positive.default(28),
  dropout: z.number().min(0).max(1).default(0),
  normNumGroups: z.number().int().default(32),
  /** Width of the text where it is attended to; null: no cross-attention. */
  crossAttentionDim: positive.nullable().default(1152),
  attentionBias: z.boolean().default(true),
  /** Height and width of the latent. */
  sampleSize: positive.default(128),
  patchSize: positive.default(2),
  activationFn: z
    .enum(['gelu-approximate', 'gelu', 'geglu', 'geglu-approximate', 'swiglu', 'linear-silu'])
    .default('gelu-approximate'),
  numEmbedsAdaNorm: positive.default(1000),
  upcastAttention: z.boolean().default(false),
  normType: z.literal('ada_norm_single').default('ada_norm_single'),
  normElementwiseAffine: z.boolean().default(false),
  normEps: z.number().positive().default(1e-6),
  /** Of the positions; null: sampleSize / 64, rounded down, at least 1. */
  interpolationScale: z.number().positive().nullish(),
  /** Condition on size and shape of the picture; null: at sampleSize 128. */
  useAdditionalConditions: z.boolean().nullish(),
  /** Width of the text embeddings, which are then projected to the model's. */
  captionChannels: positive.nullish(),
  attentionType: z.literal('default').nullish().default('default'),
});
export type PixArtConfig = z.output<typeof pixartConfig>;
export type PixArtOptions = z.input<typeof pixartConfig>;

export interface PixArtInputs {
  /** Text embeddings [N, T, captionChannels] (or crossAttentionDim). */
  readonly encoderHiddenStates?: Tensor;
  /** [N, T], 1 where a token counts; or numbers added to the scores, [N, 1, T]. */
  readonly encoderAttentionMask?: Tensor;
  /** The same for the image's patches. */
  readonly attentionMask?: Tensor;
  /** Height and width of the picture [N, 2], and their ratio [N, 1]: needed where they are conditions. */
  readonly resolution?: Tensor;
  readonly aspectRatio?: Tensor;
}

/**
 * PixArt-alpha and -sigma (Chen et al. 2024), laid out as diffusers' PixArtTransformer2DModel: a DiT that attends to
 * text, with one modulation by the timestep for all blocks (adaLN-single).
 */
export class PixArtTransformer2D extends Module {
  static readonly className = 'PixArtTransformer2DModel';
  readonly posEmbed: PatchEmbed;
  readonly transformerBlocks: readonly BasicTransformerBlock[];
  /** [2, width]: the head's shift and scale. */
  readonly scaleShiftTable: Variable;
  readonly projOut: Linear;
  readonly adalnSingle: AdaLayerNormSingle;
  readonly captionProjection?: TextProjection;
  readonly config: PixArtConfig;

  /**
   * @param rng initial weights are drawn from it.
   * @throws TypeError for a config field that is unknown or out of range.
   */
  constructor(options: PixArtOptions, rng: Generator) {
    super();
    const config = parseFields(PixArtTransformer2D.className, pixartConfig, options);
    this.config = config;
    const { sampleSize, patchSize, inChannels, numAttentionHeads, attentionHeadDim } = config;
    const dim = numAttentionHeads * attentionHeadDim;
    this.posEmbed = new PatchEmbed(
      {
        height: sampleSize,
        width: sampleSize,
        patchSize,
        inChannels,
        embedDim: dim,
        interpolationScale: config.interpolationScale ?? Math.max(Math.floor(sampleSize / 64), 1),
      },
      rng,
    );
    const block = {
      dim,
      numAttentionHeads,
      attentionHeadDim,
      dropout: config.dropout,
      crossAttentionDim: config.crossAttentionDim ?? undefined,
      activationFn: config.activationFn,
      attentionBias: config.attentionBias,
      normType: config.normType,
      normElementwiseAffine: config.normElementwiseAffine,
      normEps: config.normEps,
    };
    this.transformerBlocks = Array.from({ length: config.numLayers }, () => new BasicTransformerBlock(block, rng));
    this.scaleShiftTable = parameter(normalWeights(rng, [2, dim], { std: 1 / Math.sqrt(dim) }));
    this.projOut = new Linear(dim, patchSize * patchSize * this.outChannels, rng);
    this.adalnSingle = new AdaLayerNormSingle({ embeddingDim: dim, useAdditionalConditions: this.isToldSize }, rng);
    if (config.captionChannels)
      this.captionProjection = new TextProjection({ inFeatures: config.captionChannels, hiddenSize: dim }, rng);
  }

  get inChannels(): number {
    return this.config.inChannels;
  }
  get outChannels(): number {
    return this.config.outChannels ?? this.config.inChannels;
  }
  get sampleSize(): number {
    return this.config.sampleSize;
  }
  /** Whether the size of the picture is a condition. */
  get isToldSize(): boolean {
    return this.config.useAdditionalConditions ?? this.config.sampleSize === 128;
  }

  /**
   * @param x latents [N, inChannels, H, W]; rows and columns beyond the last whole patch are ignored.
   * @param timestep [N].
   * @returns [N, outChannels, H, W], less what was ignored; a learned variance is the second half of the channels.
   * @throws Error when the picture's size is a condition and missing.
   */
  forward(x: Tensor, timestep: Tensor, inputs: PixArtInputs = {}): Tensor {
    const { encoderHiddenStates: text, resolution, aspectRatio } = inputs;
    const size = resolution && aspectRatio && { resolution, aspectRatio };
    const { modulation, embedding } = this.adalnSingle.forward(timestep, size);
    const conditions = {
      timestep: modulation,
      encoderHiddenStates: text && (this.captionProjection?.forward(text) ?? text),
      attentionMask: scoresOf(inputs.attentionMask),
      encoderAttentionMask: scoresOf(inputs.encoderAttentionMask),
    };
    const tokens = this.transformerBlocks.reduce((y, block) => block.forward(y, conditions), this.posEmbed.forward(x));
    const [shift, scale] = split(this.scaleShiftTable.add(embedding.unsqueeze(1)), 2, 1).map((v) => v.squeeze(1));
    const patches = this.projOut.forward(modulate(normalize(tokens, 1, 1e-6), shift, scale));
    return fromPatches(patches, [x.shape[2], x.shape[3]], this.config.patchSize);
  }
}

/** A mask [N, K] of ones and zeros as diffusers adds it to the scores: a large number, not infinity. */
const scoresOf = (mask?: Tensor): Tensor | undefined =>
  mask?.rank === 2 ? mask.cast('float32').sub(1).mul(10000).unsqueeze(1) : mask;
