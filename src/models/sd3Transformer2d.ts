import { z } from 'zod';
import { parseFields } from '../io/index.js';
import {
  AdaLayerNormContinuous,
  CombinedTimestepTextProjEmbeddings,
  JointTransformerBlock,
  Linear,
  Module,
  PatchEmbed,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { modelConfig, positive } from './config.js';
import { fromPatches } from './patches.js';

/** The fields of diffusers' SD3Transformer2DModel. */
export const sd3Config = modelConfig({
  /** Height and width of the latent. */
  sampleSize: positive.default(128),
  patchSize: positive.default(2),
  inChannels: positive.default(16),
  numLayers: positive.default(18),
  attentionHeadDim: positive.default(64),
  numAttentionHeads: positive.default(18),
  /** Width of the text embeddings. */
  jointAttentionDim: positive.default(4096),
  /** Width the text embeddings are projected to: that of the model. */
  captionProjectionDim: positive.default(1152),
  pooledProjectionDim: positive.default(2048),
  /** null: `inChannels`. */
  outChannels: positive.nullable().default(16),
  /** The saved grid of positions has this many patches a side. */
  posEmbedMaxSize: positive.default(96),
  /** Blocks with a second attention, of the image alone (Stable Diffusion 3.5 medium). */
  dualAttentionLayers: z.array(z.number().int().nonnegative()).default([]),
  qkNorm: z.enum(['rms_norm', 'layer_norm', 'fp32_layer_norm']).nullish(),
});
export type SD3Config = z.output<typeof sd3Config>;
export type SD3Options = z.input<typeof sd3Config>;

export interface SD3Inputs {
  /** Text embeddings [N, T, jointAttentionDim]. */
  readonly encoderHiddenStates: Tensor;
  /** The text's summary [N, pooledProjectionDim]. */
  readonly pooledProjections: Tensor;
  /** Of a ControlNet, each [N, tokens, width]: added after the blocks, spread evenly over them. */
  readonly blockControlnetHiddenStates?: readonly Tensor[];
  /** Indices of blocks to leave out (skip-layer guidance). */
  readonly skipLayers?: readonly number[];
}

/**
 * MMDiT of Stable Diffusion 3 and 3.5 (Esser et al. 2024), laid out as diffusers' SD3Transformer2DModel: image patches
 * and text attend to each other as one sequence, each with weights of its own.
 */
export class SD3Transformer2D extends Module {
  static readonly className = 'SD3Transformer2DModel';
  readonly posEmbed: PatchEmbed;
  readonly timeTextEmbed: CombinedTimestepTextProjEmbeddings;
  readonly contextEmbedder: Linear;
  readonly transformerBlocks: readonly JointTransformerBlock[];
  readonly normOut: AdaLayerNormContinuous;
  readonly projOut: Linear;
  readonly config: SD3Config;

  /**
   * @param rng initial weights are drawn from it.
   * @throws TypeError for a config field that is unknown or out of range, RangeError for widths that do not fit.
   */
  constructor(options: SD3Options, rng: Generator) {
    super();
    const config = parseFields(SD3Transformer2D.className, sd3Config, options);
    this.config = config;
    const { sampleSize, patchSize, inChannels, numAttentionHeads, attentionHeadDim, numLayers } = config;
    const dim = numAttentionHeads * attentionHeadDim;
    if (config.captionProjectionDim !== dim)
      throw new RangeError(
        `SD3Transformer2DModel: captionProjectionDim ${config.captionProjectionDim}, expected the width ${dim}`,
      );
    this.posEmbed = new PatchEmbed(
      {
        height: sampleSize,
        width: sampleSize,
        patchSize,
        inChannels,
        embedDim: dim,
        posEmbedMaxSize: config.posEmbedMaxSize,
      },
      rng,
    );
    this.timeTextEmbed = new CombinedTimestepTextProjEmbeddings(dim, config.pooledProjectionDim, rng);
    this.contextEmbedder = new Linear(config.jointAttentionDim, dim, rng);
    this.transformerBlocks = Array.from(
      { length: numLayers },
      (_, i) =>
        new JointTransformerBlock(
          {
            dim,
            numAttentionHeads,
            attentionHeadDim,
            contextPreOnly: i === numLayers - 1,
            qkNorm: config.qkNorm ?? undefined,
            useDualAttention: config.dualAttentionLayers.includes(i),
          },
          rng,
        ),
    );
    this.normOut = new AdaLayerNormContinuous(
      { embeddingDim: dim, conditioningEmbeddingDim: dim, elementwiseAffine: false, eps: 1e-6 },
      rng,
    );
    this.projOut = new Linear(dim, patchSize * patchSize * this.outChannels, rng);
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

  /**
   * @param x latents [N, inChannels, H, W], at most `posEmbedMaxSize` patches a side; rows and columns beyond the last
   * whole patch are ignored.
   * @param timestep [N], 0..1000.
   * @returns [N, outChannels, H, W], less what was ignored.
   * @throws RangeError for more patches than there are positions, or a layer to skip that is not there.
   */
  forward(x: Tensor, timestep: Tensor, inputs: SD3Inputs): Tensor {
    const { skipLayers = [], blockControlnetHiddenStates: control = [] } = inputs;
    const { numLayers, patchSize } = this.config;
    const missing = skipLayers.find((i) => !(i >= 0 && i < numLayers));
    if (missing !== undefined)
      throw new RangeError(`SD3Transformer2DModel: layer ${missing} to skip out of range 0..${numLayers - 1}`);
    const temb = this.timeTextEmbed.forward(timestep, inputs.pooledProjections);
    let image = this.posEmbed.forward(x);
    let text: Tensor = this.contextEmbedder.forward(inputs.encoderHiddenStates);
    for (const [i, block] of this.transformerBlocks.entries()) {
      if (!skipLayers.includes(i)) {
        const tokens = block.forward(image, text, temb);
        image = tokens.image;
        text = tokens.text ?? text;
      }
      // As in diffusers the last block, whose text ends there, gets nothing from the ControlNet.
      if (control.length && i < numLayers - 1) image = image.add(control[Math.floor((i * control.length) / numLayers)]);
    }
    const patches = this.projOut.forward(this.normOut.forward(image, temb));
    return fromPatches(patches, [x.shape[2], x.shape[3]], patchSize);
  }
}
