import type { Generator } from '../random/index.js';
import { normalize, type Tensor } from '../tensor/index.js';
import { AdaLayerNormContinuous } from './adaLayerNormContinuous.js';
import { AdaLayerNormZero, type Modulation, modulate, SD35AdaLayerNormZeroX } from './adaLayerNormZero.js';
import { Attention, type QkNorm } from './attention.js';
import { FeedForward } from './feedForward.js';
import { Module } from './module.js';
import { perturbationOf } from './perturbation.js';

export interface JointTransformerBlockConfig {
  readonly dim: number;
  readonly numAttentionHeads: number;
  readonly attentionHeadDim: number;
  /** The text ends here (a model's last block). */
  readonly contextPreOnly?: boolean;
  readonly qkNorm?: QkNorm;
  /** A second attention, of the image alone (Stable Diffusion 3.5 medium). */
  readonly useDualAttention?: boolean;
}

/** A block of MMDiT (Stable Diffusion 3, Esser et al. 2024): image and text tokens with weights of their own attend together. */
export class JointTransformerBlock extends Module {
  readonly norm1: AdaLayerNormZero | SD35AdaLayerNormZeroX;
  readonly norm1Context: AdaLayerNormZero | AdaLayerNormContinuous;
  readonly attn: Attention;
  readonly attn2?: Attention;
  readonly ff: FeedForward;
  readonly ffContext?: FeedForward;

  constructor(config: JointTransformerBlockConfig, rng: Generator) {
    super();
    const { dim, numAttentionHeads: heads, attentionHeadDim: dimHead, qkNorm } = config;
    const { contextPreOnly = false, useDualAttention = false } = config;
    this.norm1 = new (useDualAttention ? SD35AdaLayerNormZeroX : AdaLayerNormZero)({ embeddingDim: dim }, rng);
    this.norm1Context = contextPreOnly
      ? new AdaLayerNormContinuous(
          { embeddingDim: dim, conditioningEmbeddingDim: dim, elementwiseAffine: false, eps: 1e-6 },
          rng,
        )
      : new AdaLayerNormZero({ embeddingDim: dim }, rng);
    const attention = { queryDim: dim, heads, dimHead, outDim: dim, bias: true, qkNorm, eps: 1e-6 };
    this.attn = new Attention({ ...attention, addedKvProjDim: dim, contextPreOnly }, rng);
    if (useDualAttention) this.attn2 = new Attention(attention, rng);
    const feedForward = () => new FeedForward({ dim, activationFn: 'gelu-approximate' }, rng);
    this.ff = feedForward();
    if (!contextPreOnly) this.ffContext = feedForward();
  }

  /**
   * @param image tokens [N, L, dim]. @param text tokens [N, T, dim]. @param temb condition [N, dim].
   * @returns both, or with `contextPreOnly` the image alone.
   */
  forward(image: Tensor, text: Tensor, temb: Tensor): { image: Tensor; text?: Tensor } {
    const { skip, output = (y: Tensor) => y } = perturbationOf(this) ?? {};
    if (skip) return { image, text };
    const ofImage = this.enter(image, temb);
    const ofText: Partial<Modulation> & { x: Tensor } =
      this.norm1Context instanceof AdaLayerNormZero
        ? this.norm1Context.forward(text, { emb: temb })
        : { x: this.norm1Context.forward(text, temb) };
    const attended = this.attn.forwardJoint(ofImage.x, ofText.x);

    let y = image.add(gate(attended.image, ofImage.gateMsa));
    if (this.attn2 && ofImage.x2 && ofImage.gateMsa2) y = y.add(gate(this.attn2.forward(ofImage.x2), ofImage.gateMsa2));
    y = y.add(feedForward(this.ff, y, ofImage));
    if (!this.ffContext || !attended.text) return { image: output(y) };
    const modulation = ofText as Modulation;
    const z = text.add(gate(attended.text, modulation.gateMsa));
    return { image: output(y), text: output(z.add(feedForward(this.ffContext, z, modulation))) };
  }

  private enter(x: Tensor, temb: Tensor): Modulation & { x: Tensor; x2?: Tensor; gateMsa2?: Tensor } {
    return this.norm1 instanceof AdaLayerNormZero ? this.norm1.forward(x, { emb: temb }) : this.norm1.forward(x, temb);
  }
}

const gate = (x: Tensor, by: Tensor): Tensor => x.mul(by.unsqueeze(1));

const feedForward = (ff: FeedForward, x: Tensor, { shiftMlp, scaleMlp, gateMlp }: Modulation): Tensor =>
  gate(ff.forward(modulate(normalize(x, 1, 1e-6), shiftMlp, scaleMlp)), gateMlp);
