import { z } from 'zod';
import { ndarray } from '../array/index.js';
import { parseFields } from '../io/index.js';
import {
  Attention,
  activate,
  FeedForward,
  LabelEmbedding,
  LayerNorm,
  Linear,
  Module,
  modulate,
  PatchEmbed,
  perturbed,
  TimestepEmbedding,
  timestepEmbedding,
  zeroed,
} from '../nn/index.js';
import { type Generator, normalWeights, xavierUniform } from '../random/index.js';
import { concat, split, stack, type Tensor } from '../tensor/index.js';
import { modelConfig, positive } from './config.js';
import type { Denoiser } from './denoiser.js';
import { fromPatches } from './patches.js';

/** How timestep and class reach the blocks: the DiT paper's four ways, and a UNet's. */
export const conditionings = ['in-context', 'cross-attention', 'channel-wise', 'adaln', 'adaln-zero'] as const;
export type DiTConditioning = (typeof conditionings)[number];

/** The arguments of the authors' DiT, in camelCase, and the conditioning. */
export const ditVariantConfig = modelConfig({
  conditioning: z.enum(conditionings).default('adaln-zero'),
  /** Height and width of the images. */
  inputSize: positive.default(32),
  patchSize: positive.default(2),
  inChannels: positive.default(4),
  /** Twice `inChannels` when the variance is learned, too. */
  outChannels: positive.nullish(),
  hiddenSize: positive.default(1152),
  depth: positive.default(28),
  numHeads: positive.default(16),
  mlpRatio: z.number().positive().default(4),
  /** Without the null class, which has a row of its own. */
  numClasses: positive.default(1000),
});
export type DiTVariantConfig = z.output<typeof ditVariantConfig>;
export type DiTVariantOptions = z.input<typeof ditVariantConfig>;

const size = (hiddenSize: number, depth: number, numHeads: number): DiTVariantOptions => ({
  hiddenSize,
  depth,
  numHeads,
});
/** The widths and depths of {@link ditPresets}. */
export const ditVariantPresets = {
  tiny: size(64, 2, 2),
  xxs: size(96, 4, 3),
  xs: size(192, 6, 3),
  s: size(384, 12, 6),
  b: size(768, 12, 12),
  l: size(1024, 24, 16),
  xl: size(1152, 28, 16),
} satisfies Record<string, DiTVariantOptions>;

/** Vectors [N, dim] that a block reads off the condition. */
const vectorsPerBlock: Readonly<Record<DiTConditioning, number>> = {
  'in-context': 0,
  'cross-attention': 0,
  'channel-wise': 1,
  adaln: 4,
  'adaln-zero': 6,
};

/** What the blocks are told: timestep and class as two tokens [N, 2, dim], and SiLU of their sum [N, dim]. */
interface Condition {
  readonly tokens: Tensor;
  readonly activated: Tensor;
}

/** Attention and MLP, each after a norm and added to its input, and what the condition does to them. */
export class DiTVariantBlock extends Module {
  readonly norm1: LayerNorm;
  readonly attn: Attention;
  readonly normCross?: LayerNorm;
  readonly crossAttn?: Attention;
  readonly norm2: LayerNorm;
  readonly mlp: FeedForward;
  readonly modulation?: Linear;

  constructor(
    private readonly config: DiTVariantConfig,
    rng: Generator,
  ) {
    super();
    const { conditioning, hiddenSize: dim, numHeads: heads, mlpRatio: mult } = config;
    const attention = () => new Attention({ queryDim: dim, heads, dimHead: dim / heads, bias: true }, rng);
    const affine = !conditioning.startsWith('adaln');
    this.norm1 = new LayerNorm(dim, { eps: 1e-6, affine });
    this.attn = attention();
    if (conditioning === 'cross-attention') {
      this.normCross = new LayerNorm(dim, { eps: 1e-6 });
      this.crossAttn = attention();
    }
    this.norm2 = new LayerNorm(dim, { eps: 1e-6, affine });
    this.mlp = new FeedForward({ dim, mult, activationFn: 'gelu-approximate' }, rng);
    const vectors = vectorsPerBlock[conditioning];
    if (vectors > 0) this.modulation = new Linear(dim, vectors * dim, rng);
  }

  /** @param x tokens [N, L, dim]. */
  forward(x: Tensor, condition: Condition): Tensor {
    return perturbed(this, x, () => this.answer(x, condition));
  }

  private answer(x: Tensor, { tokens, activated }: Condition): Tensor {
    const { conditioning } = this.config;
    const vectors = this.modulation ? split(this.modulation.forward(activated), vectorsPerBlock[conditioning], 1) : [];
    const [shiftMsa, scaleMsa, shiftMlp, scaleMlp, gateMsa, gateMlp] = conditioning === 'channel-wise' ? [] : vectors;
    let y = conditioning === 'channel-wise' ? x.add(vectors[0].unsqueeze(1)) : x;
    y = y.add(gated(this.attn.forward(modulated(this.norm1.forward(y), shiftMsa, scaleMsa)), gateMsa));
    if (this.crossAttn) y = y.add(this.crossAttn.forward(this.normCross!.forward(y), { encoderHiddenStates: tokens }));
    return y.add(gated(this.mlp.forward(modulated(this.norm2.forward(y), shiftMlp, scaleMlp)), gateMlp));
  }
}

const gated = (x: Tensor, gate?: Tensor): Tensor => (gate ? x.mul(gate.unsqueeze(1)) : x);
const modulated = (x: Tensor, shift?: Tensor, scale?: Tensor): Tensor =>
  shift && scale ? modulate(x, shift, scale) : x;

/**
 * The block designs that "Scalable Diffusion Models with Transformers" (Peebles & Xie 2023, section 3.2) compares, in
 * one model that is the same in all else: `conditioning` says how timestep and class come in. Embedders, head and
 * initial weights follow the authors' code (facebookresearch/DiT); the model of their name, in diffusers' layout, is {@link DiT}.
 *
 * - in-context: two more tokens, taken away after the last block.
 * - cross-attention: each block attends to those two tokens after its self-attention.
 * - channel-wise: class and time embedding are added, and a linear map of the sum to every token of a block's input,
 *   channel by channel, as a UNet does to its features.
 * - adaln: the sum gives scale and shift of the norms; adaln-zero: gates of both branches, too, that start at zero.
 */
export class DiTVariant extends Module implements Denoiser {
  static readonly className = 'DiTVariant';
  readonly posEmbed: PatchEmbed;
  readonly tEmbedder: TimestepEmbedding;
  readonly yEmbedder: LabelEmbedding;
  readonly blocks: readonly DiTVariantBlock[];
  readonly normOut: LayerNorm;
  /** Scale and shift of the last norm, where it is adaptive. */
  readonly modulationOut?: Linear;
  readonly projOut: Linear;
  readonly config: DiTVariantConfig;

  /**
   * @param rng initial weights are drawn from it; the head, the last norm's modulation and adaln-zero's start at zero.
   * @throws TypeError for a config field that is unknown or out of range; RangeError for fields that do not fit together.
   */
  constructor(options: DiTVariantOptions, rng: Generator) {
    super();
    const config = parseFields(DiTVariant.className, ditVariantConfig, options);
    this.config = config;
    const { conditioning, inputSize, patchSize, inChannels, hiddenSize: dim, depth, numHeads, numClasses } = config;
    if (inputSize % patchSize)
      throw new RangeError(`DiTVariant: patches of ${patchSize} do not tile an image of ${inputSize}`);
    if (dim % numHeads) throw new RangeError(`DiTVariant: ${numHeads} heads do not divide hiddenSize ${dim}`);
    this.posEmbed = new PatchEmbed({ height: inputSize, width: inputSize, patchSize, inChannels, embedDim: dim }, rng);
    this.tEmbedder = new TimestepEmbedding({ inChannels: 256, timeEmbedDim: dim }, rng);
    this.yEmbedder = new LabelEmbedding(numClasses, dim, 0.1, rng);
    this.blocks = Array.from({ length: depth }, () => new DiTVariantBlock(config, rng));
    const adaptive = conditioning.startsWith('adaln');
    this.normOut = new LayerNorm(dim, { eps: 1e-6, affine: !adaptive });
    if (adaptive) this.modulationOut = new Linear(dim, 2 * dim, rng);
    this.projOut = new Linear(dim, patchSize ** 2 * this.outChannels, rng);
    this.initialize(rng);
  }

  private initialize(rng: Generator): void {
    for (const layer of this.namedModules().values())
      if (layer instanceof Linear) {
        layer.weight.set(xavierUniform(rng, layer.weight.shape));
        layer.bias?.set(ndarray(new Float32Array(layer.bias.size)));
      }
    const tables = [this.tEmbedder.linear_1, this.tEmbedder.linear_2, this.yEmbedder.embeddingTable];
    for (const { weight } of tables) weight.set(normalWeights(rng, weight.shape, { std: 0.02 }));
    const zeros = [this.projOut, this.modulationOut];
    if (this.config.conditioning === 'adaln-zero') zeros.push(...this.blocks.map(({ modulation }) => modulation));
    for (const layer of zeros) if (layer) zeroed(layer);
  }

  get inChannels(): number {
    return this.config.inChannels;
  }
  get outChannels(): number {
    return this.config.outChannels ?? this.config.inChannels;
  }
  get sampleSize(): number {
    return this.config.inputSize;
  }
  get nullClass(): number {
    return this.config.numClasses;
  }

  /**
   * @param x noisy images [N, inChannels, H, W].
   * @param timestep [N], any float.
   * @param classLabels int64 [N], 0..numClasses; the last is the null class.
   * @returns [N, outChannels, H, W]. @throws RangeError when patches do not tile the images, Error without labels.
   */
  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
    const { patchSize: p, conditioning } = this.config;
    const [height, width] = x.shape.slice(2);
    if (height % p || width % p)
      throw new RangeError(`DiTVariant: patches of ${p} do not tile images of ${height}x${width}`);
    if (!classLabels) throw new Error(`DiTVariant: needs class labels; ${this.nullClass} stands for no class`);

    const sinusoids = timestepEmbedding(timestep, 256, { flipSinToCos: true, downscaleFreqShift: 0 });
    const [t, y] = [this.tEmbedder.forward(sinusoids), this.yEmbedder.forward(classLabels)];
    const condition = { tokens: stack([t, y], 1), activated: activate('silu', t.add(y)) };
    const patches = this.posEmbed.forward(x);
    const inContext = conditioning === 'in-context';
    let tokens = inContext ? concat([condition.tokens, patches], 1) : patches;
    for (const block of this.blocks) tokens = block.forward(tokens, condition);

    let last = this.normOut.forward(inContext ? tokens.slice(1, 2) : tokens);
    if (this.modulationOut) {
      const [shift, scale] = split(this.modulationOut.forward(condition.activated), 2, 1);
      last = modulate(last, shift, scale);
    }
    return fromPatches(this.projOut.forward(last), [height, width], p);
  }
}
