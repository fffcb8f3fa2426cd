import { z } from 'zod';
import { parseFields } from '../io/index.js';
import {
  AdaLayerNormZero,
  Attention,
  activate,
  createTokenMixer,
  FeedForward,
  LayerNorm,
  Linear,
  Module,
  modulate,
  PatchEmbed,
  perturbed,
  type TokenMixer,
  tokenMixers,
  zeroed,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { normalize, split, type Tensor } from '../tensor/index.js';
import { modelConfig, positive } from './config.js';
import type { Denoiser } from './denoiser.js';
import { fromPatches } from './patches.js';

/** The fields of diffusers' DiTTransformer2DModel that shape the network. */
export const ditConfig = modelConfig({
  numAttentionHeads: positive.default(16),
  attentionHeadDim: positive.default(72),
  inChannels: positive.default(4),
  /** Twice `inChannels` when the variance is learned, too. */
  outChannels: positive.nullish(),
  numLayers: positive.default(28),
  dropout: z.number().min(0).max(1).default(0),
  attentionBias: z.boolean().default(true),
  /** Height and width of the image in pixels (of the latent, for a latent model). */
  sampleSize: positive.default(32),
  patchSize: positive.default(2),
  activationFn: z
    .enum(['gelu-approximate', 'gelu', 'geglu', 'geglu-approximate', 'swiglu'])
    .default('gelu-approximate'),
  /** Number of classes; the label of that number is the null class. */
  numEmbedsAdaNorm: positive.default(1000),
  normType: z.literal('ada_norm_zero').default('ada_norm_zero'),
  /** Learn scale and shift of the norm before the feed-forward, too. */
  normElementwiseAffine: z.boolean().default(false),
  normEps: z.number().positive().default(1e-5),
  normNumGroups: z.number().int().default(32),
  upcastAttention: z.boolean().default(false),
  /** Ours: what stands in for attention. Absent for softmax attention, as diffusers knows no other. */
  mixer: z
    .enum(['softmax', ...tokenMixers])
    .optional()
    .transform((mixer) => (mixer === 'softmax' ? undefined : mixer)),
});
export type DiTConfig = z.output<typeof ditConfig>;
export type DiTOptions = z.input<typeof ditConfig>;

const width = (heads: number, headDim: number, numLayers: number): DiTOptions => ({
  numAttentionHeads: heads,
  attentionHeadDim: headDim,
  numLayers,
});
/** The paper's sizes, and three that train on a laptop's processor. */
export const ditPresets = {
  tiny: width(2, 32, 2),
  xxs: width(3, 32, 4),
  xs: width(3, 64, 6),
  s: width(6, 64, 12),
  b: width(12, 64, 12),
  l: width(16, 64, 24),
  xl: width(16, 72, 28),
} satisfies Record<string, DiTOptions>;

/** One block: attention (or another mixer of tokens) and MLP, each between an adaptive norm and a gate that both come from the condition. */
export class DiTBlock extends Module {
  readonly norm1: AdaLayerNormZero;
  readonly attn1?: Attention;
  readonly mixer?: TokenMixer;
  readonly norm3: LayerNorm;
  readonly ff: FeedForward;

  constructor(config: DiTConfig, dim: number, rng: Generator) {
    super();
    const { numAttentionHeads: heads, attentionHeadDim: dimHead, attentionBias: bias, dropout } = config;
    this.norm1 = new AdaLayerNormZero({ embeddingDim: dim, numEmbeddings: config.numEmbedsAdaNorm }, rng);
    zeroed(this.norm1.linear);
    if (config.mixer) this.mixer = createTokenMixer(config.mixer, { dim, heads, dropout }, rng);
    else this.attn1 = new Attention({ queryDim: dim, heads, dimHead, bias, dropout }, rng);
    this.norm3 = new LayerNorm(dim, { eps: config.normEps, affine: config.normElementwiseAffine });
    this.ff = new FeedForward({ dim, activationFn: config.activationFn, dropout }, rng);
  }

  /** @param x tokens [N, L, dim]. */
  forward(x: Tensor, timestep: Tensor, classLabels: Tensor): Tensor {
    return perturbed(this, x, () => this.answer(x, timestep, classLabels));
  }

  private answer(x: Tensor, timestep: Tensor, classLabels: Tensor): Tensor {
    const { x: normed, gateMsa, shiftMlp, scaleMlp, gateMlp } = this.norm1.forward(x, { timestep, classLabels });
    const attended = x.add((this.attn1 ?? this.mixer!).forward(normed).mul(gateMsa.unsqueeze(1)));
    const modulated = modulate(this.norm3.forward(attended), shiftMlp, scaleMlp);
    return attended.add(this.ff.forward(modulated).mul(gateMlp.unsqueeze(1)));
  }
}

/**
 * DiT: "Scalable Diffusion Models with Transformers" (Peebles & Xie 2023), class-conditional with adaLN-Zero,
 * laid out as diffusers' DiTTransformer2DModel: each block embeds timestep and label itself, the head reuses block 0's.
 */
export class DiT extends Module implements Denoiser {
  static readonly className = 'DiTTransformer2DModel';
  readonly posEmbed: PatchEmbed;
  readonly transformerBlocks: readonly DiTBlock[];
  readonly projOut_1: Linear;
  readonly projOut_2: Linear;
  readonly config: DiTConfig;

  /**
   * @param rng initial weights are drawn from it; adaLN-Zero's gates and the head start at zero, as in the paper.
   * @throws TypeError for a config field that is unknown or out of range; RangeError when patches do not tile the image.
   */
  constructor(options: DiTOptions, rng: Generator) {
    super();
    const config = parseFields(DiT.className, ditConfig, options);
    this.config = config;
    const { sampleSize, patchSize, inChannels } = config;
    const dim = config.numAttentionHeads * config.attentionHeadDim;
    if (sampleSize % patchSize)
      throw new RangeError(`DiT: patches of ${patchSize} do not tile an image of ${sampleSize}`);
    this.posEmbed = new PatchEmbed(
      { height: sampleSize, width: sampleSize, patchSize, inChannels, embedDim: dim },
      rng,
    );
    this.transformerBlocks = Array.from({ length: config.numLayers }, () => new DiTBlock(config, dim, rng));
    this.projOut_1 = zeroed(new Linear(dim, 2 * dim, rng));
    this.projOut_2 = zeroed(new Linear(dim, patchSize * patchSize * this.outChannels, rng));
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
  get nullClass(): number {
    return this.config.numEmbedsAdaNorm;
  }

  /**
   * @param x noisy images [N, inChannels, H, W].
   * @param timestep [N], 0..999 (any float).
   * @param classLabels int64 [N], 0..numEmbedsAdaNorm; the last is the null class.
   * @returns [N, outChannels, H, W]; with a learned variance its values are the second half of the channels.
   * @throws RangeError when patches do not tile the images, Error without labels.
   */
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
    const { patchSize: p } = this.config;
    const [height, width] = x.shape.slice(2);
    if (height % p || width % p) throw new RangeError(`DiT: patches of ${p} do not tile images of ${height}x${width}`);
    if (!classLabels) throw new Error(`DiT: needs class labels; ${this.nullClass} stands for no class`);

    let tokens = this.posEmbed.forward(x);
    for (const block of this.transformerBlocks) tokens = block.forward(tokens, timestep, classLabels);

    const condition = this.transformerBlocks[0].norm1.emb!.forward(timestep, classLabels);
    const [shift, scale] = split(this.projOut_1.forward(activate('silu', condition)), 2, 1);
    const patches = this.projOut_2.forward(modulate(normalize(tokens, 1, 1e-6), shift, scale));
    return fromPatches(patches, [height, width], p);
  }
}
