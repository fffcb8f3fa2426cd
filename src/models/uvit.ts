import { z } from 'zod';
import { ndarray } from '../array/index.js';
import { parseFields } from '../io/index.js';
import {
  Attention,
  activate,
  Conv2d,
  Embedding,
  FeedForward,
  LayerNorm,
  Linear,
  Module,
  parameter,
  perturbed,
  timestepEmbedding,
} from '../nn/index.js';
import { type Generator, truncNormal } from '../random/index.js';
import { concat, type Tensor, type Variable } from '../tensor/index.js';
import { flag, modelConfig, positive } from './config.js';
import type { Denoiser } from './denoiser.js';
import { fromPatches } from './patches.js';

/** The arguments of the authors' UViT, in camelCase. */
export const uvitConfig = modelConfig({
  /** Height and width of the images. */
  imgSize: positive.default(224),
  patchSize: positive.default(16),
  inChans: positive.default(3),
  embedDim: positive.default(768),
  /** Blocks beside the middle one: an even number. */
  depth: positive.default(12),
  numHeads: positive.default(12),
  mlpRatio: z.number().positive().default(4),
  qkvBias: flag,
  /** An MLP on the timestep's sinusoids; the authors found it makes no difference. */
  mlpTimeEmbed: flag,
  /** With the null class, which is the last; below 1: the model takes no labels. */
  numClasses: z.number().int().default(-1),
  /** A 3x3 convolution at the end, against seams between patches. */
  conv: z.boolean().default(true),
  /** The long skip connections that make it a U. */
  skip: z.boolean().default(true),
});
export type UViTConfig = z.output<typeof uvitConfig>;
export type UViTOptions = z.input<typeof uvitConfig>;

const size = (embedDim: number, depth: number, numHeads: number): UViTOptions => ({ embedDim, depth, numHeads });
/** The paper's sizes, and three that train on a laptop's processor. */
export const uvitPresets = {
  tiny: size(64, 2, 2),
  xxs: size(128, 4, 4),
  xs: size(192, 6, 3),
  s: size(512, 12, 8),
  m: size(768, 16, 12),
  l: size(1024, 20, 16),
} satisfies Record<string, UViTOptions>;

/** A plain pre-norm transformer block; on the way up it first takes a token of the way down beside each of its own. */
export class UViTBlock extends Module {
  readonly norm1: LayerNorm;
  readonly attn: Attention;
  readonly norm2: LayerNorm;
  readonly mlp: FeedForward;
  readonly skipLinear?: Linear;

  constructor(
    { embedDim: dim, numHeads: heads, mlpRatio: mult, qkvBias: bias }: UViTConfig,
    skip: boolean,
    rng: Generator,
  ) {
    super();
    this.norm1 = new LayerNorm(dim);
    this.attn = new Attention({ queryDim: dim, heads, dimHead: dim / heads, bias }, rng);
    this.norm2 = new LayerNorm(dim);
    this.mlp = new FeedForward({ dim, mult, activationFn: 'gelu' }, rng);
    if (skip) this.skipLinear = new Linear(2 * dim, dim, rng);
  }

  /** @param x tokens [N, L, dim]; @param skip as x, from the way down. */
  forward(x: Tensor, skip?: Tensor): Tensor {
    const both = this.skipLinear && skip ? this.skipLinear.forward(concat([x, skip], 2)) : x;
    return perturbed(this, both, () => {
      const attended = both.add(this.attn.forward(this.norm1.forward(both)));
      return attended.add(this.mlp.forward(this.norm2.forward(attended)));
    });
  }
}

class PatchProjection extends Module {
  readonly proj: Conv2d;
  constructor({ patchSize, inChans, embedDim }: UViTConfig, rng: Generator) {
    super();
    this.proj = new Conv2d(inChans, embedDim, patchSize, { stride: patchSize }, rng);
  }
  forward(x: Tensor): Tensor {
    const y = this.proj.forward(x);
    return y.reshape([y.shape[0], y.shape[1], -1]).transpose([0, 2, 1]);
  }
}

class TimeMlp extends Module {
  readonly linear_1: Linear;
  readonly linear_2: Linear;
  constructor(dim: number, rng: Generator) {
    super();
    this.linear_1 = new Linear(dim, 4 * dim, rng);
    this.linear_2 = new Linear(4 * dim, dim, rng);
  }
  forward(x: Tensor): Tensor {
    return this.linear_2.forward(activate('silu', this.linear_1.forward(x)));
  }
}

/**
 * U-ViT: "All are Worth Words: A ViT Backbone for Diffusion Models" (Bao et al. 2023). Time, class and patches are all
 * tokens of one sequence, and shallow blocks have long skip connections to deep ones.
 */
export class UViT extends Module implements Denoiser {
  static readonly className = 'UViT';
  readonly patchEmbed: PatchProjection;
  readonly timeEmbed?: TimeMlp;
  readonly labelEmb?: Embedding;
  readonly posEmbed: Variable;
  readonly inBlocks: readonly UViTBlock[];
  readonly midBlock: UViTBlock;
  readonly outBlocks: readonly UViTBlock[];
  readonly norm: LayerNorm;
  readonly decoderPred: Linear;
  readonly finalLayer?: Conv2d;
  readonly config: UViTConfig;

  /**
   * @param rng initial weights are drawn from it: linear layers as normal numbers of deviation 0.02, cut at two.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: UViTOptions, rng: Generator) {
    super();
    const config = parseFields(UViT.className, uvitConfig, options);
    this.config = config;
    const { imgSize, patchSize, inChans, embedDim, depth, numHeads, numClasses } = config;
    if (imgSize % patchSize) throw new RangeError(`UViT: patches of ${patchSize} do not tile an image of ${imgSize}`);
    if (embedDim % numHeads) throw new RangeError(`UViT: ${numHeads} heads do not divide embedDim ${embedDim}`);
    if (depth % 2) throw new RangeError(`UViT: depth ${depth}, expected an even number beside the middle block`);
    this.patchEmbed = new PatchProjection(config, rng);
    if (config.mlpTimeEmbed) this.timeEmbed = new TimeMlp(embedDim, rng);
    if (numClasses > 0) this.labelEmb = new Embedding(numClasses, embedDim, rng);
    const tokens = this.extras + (imgSize / patchSize) ** 2;
    this.posEmbed = parameter(truncNormal(rng, [1, tokens, embedDim], { std: 0.02 }));
    const blocks = (skip: boolean) => Array.from({ length: depth / 2 }, () => new UViTBlock(config, skip, rng));
    this.inBlocks = blocks(false);
    this.midBlock = new UViTBlock(config, false, rng);
    this.outBlocks = blocks(config.skip);
    this.norm = new LayerNorm(embedDim);
    this.decoderPred = new Linear(embedDim, patchSize ** 2 * inChans, rng);
    if (config.conv) this.finalLayer = new Conv2d(inChans, inChans, 3, { padding: 1 }, rng);
    for (const layer of this.namedModules().values())
      if (layer instanceof Linear) {
        layer.weight.set(truncNormal(rng, layer.weight.shape, { std: 0.02 }));
        layer.bias?.set(ndarray(new Float32Array(layer.bias.size)));
      }
  }

  /** Tokens before the patches'. */
  private get extras(): number {
    return this.config.numClasses > 0 ? 2 : 1;
  }
  get inChannels(): number {
    return this.config.inChans;
  }
  get outChannels(): number {
    return this.config.inChans;
  }
  get sampleSize(): number {
    return this.config.imgSize;
  }
  get nullClass(): number | undefined {
    return this.config.numClasses > 0 ? this.config.numClasses - 1 : undefined;
  }

  /**
   * @param x noisy images [N, inChans, imgSize, imgSize].
   * @param timestep [N], any float.
   * @param classLabels int64 [N], 0..numClasses - 1, the last of them the null class; where the model takes labels.
   * @returns as x. @throws RangeError for images of another size, Error without labels.
   */
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
    const { imgSize, patchSize, embedDim } = this.config;
    const [height, width] = x.shape.slice(2);
    if (height !== imgSize || width !== imgSize)
      throw new RangeError(`UViT: images of ${height}x${width}, expected ${imgSize}x${imgSize}`);
    if (this.labelEmb && !classLabels)
      throw new Error(`UViT: needs class labels; ${this.nullClass} stands for no class`);

    const sinusoids = timestepEmbedding(timestep, embedDim, { flipSinToCos: true, downscaleFreqShift: 0 });
    const time = (this.timeEmbed?.forward(sinusoids) ?? sinusoids).unsqueeze(1);
    const label = this.labelEmb?.forward(classLabels!).unsqueeze(1);
    const patches = this.patchEmbed.forward(x);
    let tokens: Tensor = concat(label ? [label, time, patches] : [time, patches], 1).add(this.posEmbed);

    const skips: Tensor[] = [];
    for (const block of this.inBlocks) {
      tokens = block.forward(tokens);
      skips.push(tokens);
    }
    tokens = this.midBlock.forward(tokens);
    for (const block of this.outBlocks) tokens = block.forward(tokens, skips.pop());

    const predicted = this.decoderPred.forward(this.norm.forward(tokens)).slice(1, this.extras, tokens.shape[1]);
    const image = fromPatches(predicted, [height, width], patchSize);
    return this.finalLayer?.forward(image) ?? image;
  }
}
