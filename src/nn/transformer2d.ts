import type { Generator } from '../random/index.js';
import { linear, type Tensor } from '../tensor/index.js';
import { Conv2d } from './conv2d.js';
import type { FeedForwardActivation } from './feedForward.js';
import { GroupNorm } from './groupNorm.js';
import { Linear } from './linear.js';
import { Module } from './module.js';
import { BasicTransformerBlock, type TransformerBlockInputs, type TransformerNorm } from './transformerBlock.js';

/** The arguments of diffusers' `Transformer2DModel` for continuous inputs, in camelCase. */
export interface Transformer2DConfig {
  /** Default 16. */
  readonly numAttentionHeads?: number;
  /** Default 88. */
  readonly attentionHeadDim?: number;
  readonly inChannels: number;
  /** Default `inChannels`, which the residual connection asks for. */
  readonly outChannels?: number;
  /** Default 1. */
  readonly numLayers?: number;
  readonly dropout?: number;
  /** Default 32. */
  readonly normNumGroups?: number;
  readonly crossAttentionDim?: number;
  readonly attentionBias?: boolean;
  readonly activationFn?: FeedForwardActivation;
  readonly numEmbedsAdaNorm?: number;
  /** Project by linear layers instead of 1x1 convolutions: the same function, weights of another shape. */
  readonly useLinearProjection?: boolean;
  readonly onlyCrossAttention?: boolean;
  readonly doubleSelfAttention?: boolean;
  readonly normType?: TransformerNorm;
  readonly normElementwiseAffine?: boolean;
  readonly normEps?: number;
}

/** Transformer blocks over the positions of an image [N, C, H, W], between two projections, added to the image. */
export class Transformer2DModel extends Module {
  readonly norm: GroupNorm;
  readonly projIn: Linear | Conv2d;
  readonly transformerBlocks: readonly BasicTransformerBlock[];
  readonly projOut: Linear | Conv2d;

  constructor(config: Transformer2DConfig, rng: Generator) {
    super();
    const { numAttentionHeads = 16, attentionHeadDim = 88, inChannels, outChannels = inChannels } = config;
    const dim = numAttentionHeads * attentionHeadDim;
    // Older configurations leave 'layer_norm' beside a number of timesteps.
    const { normType = 'layer_norm', numEmbedsAdaNorm } = config;
    const norm = normType === 'layer_norm' && numEmbedsAdaNorm ? 'ada_norm' : normType;
    const project = (from: number, to: number) =>
      config.useLinearProjection ? new Linear(from, to, rng) : new Conv2d(from, to, 1, {}, rng);
    this.norm = new GroupNorm(config.normNumGroups ?? 32, inChannels, { eps: 1e-6 });
    this.projIn = project(inChannels, dim);
    this.transformerBlocks = Array.from(
      { length: config.numLayers ?? 1 },
      () => new BasicTransformerBlock({ ...config, dim, numAttentionHeads, attentionHeadDim, normType: norm }, rng),
    );
    this.projOut = project(dim, outChannels);
  }

  /** Masks as {@link Attention} takes them, bool or float. */
  forward(image: Tensor, inputs: TransformerBlockInputs = {}): Tensor {
    const [n, , height, width] = image.shape;
    const tokens = this.norm
      .forward(image)
      .reshape([n, -1, height * width])
      .swapAxes(1, 2);
    const blocks = this.transformerBlocks.reduce((x, block) => block.forward(x, inputs), project(this.projIn, tokens));
    return project(this.projOut, blocks).swapAxes(1, 2).reshape([n, -1, height, width]).add(image);
  }
}

const project = ({ weight, bias }: Linear | Conv2d, tokens: Tensor): Tensor =>
  linear(tokens, weight.reshape([weight.shape[0], weight.shape[1]]), bias);
