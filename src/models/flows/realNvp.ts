import { BatchNorm, Module } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { concat, relu, type Tensor } from '../../tensor/index.js';
import { checkInput, type Flow, type FromLatent, noLogDet, sumPerSample, type ToLatent } from './flow.js';
import { checkerboardMask, squeeze2x2, squeezeDiagonals, unsqueeze2x2, unsqueezeDiagonals } from './squeeze.js';
import { WeightNormConv2d, WeightNormScale } from './weightNorm.js';

class ResidualBlock extends Module {
  readonly inNorm: BatchNorm;
  readonly inConv: WeightNormConv2d;
  readonly outNorm: BatchNorm;
  readonly outConv: WeightNormConv2d;

  constructor(channels: number, rng: Generator) {
    super();
    this.inNorm = new BatchNorm(channels);
    this.inConv = new WeightNormConv2d(channels, channels, 3, { bias: false }, rng);
    this.outNorm = new BatchNorm(channels);
    this.outConv = new WeightNormConv2d(channels, channels, 3, {}, rng);
  }

  forward(x: Tensor): Tensor {
    const inner = this.inConv.forward(relu(this.inNorm.forward(x)));
    return this.outConv.forward(relu(this.outNorm.forward(inner))).add(x);
  }
}

/** The network of s and t: residual blocks whose outputs all add to the answer through 1x1 convolutions. */
class ScaleShiftNet extends Module {
  readonly inNorm: BatchNorm;
  readonly inConv: WeightNormConv2d;
  readonly inSkip: WeightNormConv2d;
  readonly blocks: readonly ResidualBlock[];
  readonly skips: readonly WeightNormConv2d[];
  readonly outNorm: BatchNorm;
  readonly outConv: WeightNormConv2d;

  constructor(
    inChannels: number,
    midChannels: number,
    blocks: number,
    /** Half of a checkerboard's pixels are 0, which halves what the norm lets through. */
    private readonly doubled: boolean,
    rng: Generator,
  ) {
    super();
    this.inNorm = new BatchNorm(inChannels);
    this.inConv = new WeightNormConv2d(2 * inChannels, midChannels, 3, {}, rng);
    this.inSkip = new WeightNormConv2d(midChannels, midChannels, 1, {}, rng);
    this.blocks = Array.from({ length: blocks }, () => new ResidualBlock(midChannels, rng));
    this.skips = Array.from({ length: blocks }, () => new WeightNormConv2d(midChannels, midChannels, 1, {}, rng));
    this.outNorm = new BatchNorm(midChannels);
    this.outConv = new WeightNormConv2d(midChannels, 2 * inChannels, 1, {}, rng);
  }

  forward(x: Tensor): Tensor {
    const normed = this.doubled ? this.inNorm.forward(x).mul(2) : this.inNorm.forward(x);
    let y = this.inConv.forward(relu(concat([normed, normed.neg()], 1)));
    let sum = this.inSkip.forward(y);
    for (const [i, block] of this.blocks.entries()) {
      y = block.forward(y);
      sum = sum.add(this.skips[i].forward(y));
    }
    return this.outConv.forward(relu(this.outNorm.forward(sum)));
  }
}

/** z = (x + t) exp(s) on the pixels of one colour, or on half of the channels; s = rescale tanh(...). */
class ImageCoupling extends Module implements Flow {
  readonly stNet: ScaleShiftNet;
  readonly rescale: WeightNormScale;

  constructor(
    channels: number,
    midChannels: number,
    blocks: number,
    private readonly mask: 'checkerboard' | 'channels',
    private readonly reverse: boolean,
    rng: Generator,
  ) {
    super();
    const inputs = mask === 'channels' ? channels / 2 : channels;
    this.stNet = new ScaleShiftNet(inputs, midChannels, blocks, mask === 'checkerboard', rng);
    this.rescale = new WeightNormScale(inputs);
  }

  forward(x: Tensor): ToLatent {
    const { change, s, t, joined } = this.#parts(x);
    return { z: joined(change.add(t).mul(s.exp())), logDet: sumPerSample(s) };
  }

  inverse(z: Tensor): FromLatent {
    const { change, s, t, joined } = this.#parts(z);
    return { x: joined(change.mul(s.neg().exp()).sub(t)), logDet: sumPerSample(s).neg() };
  }

  #parts(x: Tensor) {
    const [n, c, h, w] = x.shape;
    const answerTo = (kept: Tensor): [Tensor, Tensor] => {
      const st = this.stNet.forward(kept);
      const half = st.shape[1] / 2;
      return [this.rescale.forward(st.slice(1, 0, half).tanh()), st.slice(1, half, 2 * half)];
    };
    if (this.mask === 'checkerboard') {
      const kept = checkerboardMask(h, w, this.reverse);
      const [s, t] = answerTo(x.mul(kept));
      const open = kept.neg().add(1);
      return { change: x, s: s.mul(open), t: t.mul(open), joined: (changed: Tensor) => changed };
    }
    const [a, b] = [x.slice(1, 0, c / 2), x.slice(1, c / 2, c)];
    const [change, kept] = this.reverse ? [b, a] : [a, b];
    const [s, t] = answerTo(kept);
    const joined = (changed: Tensor) =>
      concat(this.reverse ? [kept, changed] : [changed, kept], 1).reshape([n, c, h, w]);
    return { change, s, t, joined };
  }
}

/** One scale: checkerboard couplings, then channel couplings, then half of the values go on to the next scale. */
class Scale extends Module implements Flow {
  readonly inCouplings: readonly ImageCoupling[];
  readonly outCouplings: readonly ImageCoupling[];
  readonly nextBlock?: Scale;

  constructor(scales: number, channels: number, midChannels: number, blocks: number, rng: Generator) {
    super();
    const last = scales === 1;
    const coupling = (c: number, mid: number, mask: 'checkerboard' | 'channels') => (_: unknown, i: number) =>
      new ImageCoupling(c, mid, blocks, mask, i % 2 === 1, rng);
    this.inCouplings = Array.from({ length: last ? 4 : 3 }, coupling(channels, midChannels, 'checkerboard'));
    this.outCouplings = Array.from({ length: last ? 0 : 3 }, coupling(4 * channels, 2 * midChannels, 'channels'));
    if (!last) this.nextBlock = new Scale(scales - 1, 2 * channels, 2 * midChannels, blocks, rng);
  }

  forward(x: Tensor): ToLatent {
    let [z, logDet] = [x, noLogDet(x)];
    const through = (couplings: readonly ImageCoupling[]) => {
      for (const coupling of couplings) {
        const step = coupling.forward(z);
        [z, logDet] = [step.z, logDet.add(step.logDet)];
      }
    };
    through(this.inCouplings);
    if (!this.nextBlock) return { z, logDet };
    z = squeeze2x2(z);
    through(this.outCouplings);
    const [onwards, rest] = halves(squeezeDiagonals(unsqueeze2x2(z)));
    const next = this.nextBlock.forward(onwards);
    return { z: unsqueezeDiagonals(concat([next.z, rest], 1)), logDet: logDet.add(next.logDet) };
  }

  inverse(z: Tensor): FromLatent {
    let [x, logDet] = [z, noLogDet(z)];
    const through = (couplings: readonly ImageCoupling[]) => {
      for (const coupling of couplings.toReversed()) {
        const step = coupling.inverse(x);
        [x, logDet] = [step.x, logDet.add(step.logDet)];
      }
    };
    if (this.nextBlock) {
      const [onwards, rest] = halves(squeezeDiagonals(z));
      const next = this.nextBlock.inverse(onwards);
      logDet = logDet.add(next.logDet);
      x = squeeze2x2(unsqueezeDiagonals(concat([next.x, rest], 1)));
      through(this.outCouplings);
      x = unsqueeze2x2(x);
    }
    through(this.inCouplings);
    return { x, logDet };
  }
}

const halves = (x: Tensor): [Tensor, Tensor] => {
  const half = x.shape[1] / 2;
  return [x.slice(1, 0, half), x.slice(1, half, 2 * half)];
};

export interface RealNvpOptions {
  /** Default 3. */
  readonly inChannels?: number;
  /** Each scale halves height and width; default 2. */
  readonly scales?: number;
  /** Of the networks at the first scale; doubles at each further one. Default 64. */
  readonly midChannels?: number;
  /** Residual blocks in each network; default 8. */
  readonly blocks?: number;
}

/**
 * Real NVP of images (Dinh et al. 2017): affine couplings over checkerboards and channels at several scales.
 * Its x are logits (see {@link Logit}); z has their shape. Couplings are exact inverses in evaluation; batch norms
 * inside their networks use running statistics there.
 */
export class RealNVP extends Module implements Flow {
  readonly flows: Scale;
  readonly inChannels: number;
  readonly scales: number;

  constructor({ inChannels = 3, scales = 2, midChannels = 64, blocks = 8 }: RealNvpOptions, rng: Generator) {
    super();
    if (!(Number.isInteger(scales) && scales > 0))
      throw new RangeError(`RealNVP: ${scales} scales, expected a whole number from 1`);
    [this.inChannels, this.scales] = [inChannels, scales];
    this.flows = new Scale(scales, inChannels, midChannels, blocks, rng);
  }

  /** @throws RangeError for other channels, or sides that cannot be halved at every scale. */
  forward(x: Tensor): ToLatent {
    this.#check(x);
    return this.flows.forward(x);
  }

  inverse(z: Tensor): FromLatent {
    this.#check(z);
    return this.flows.inverse(z);
  }

  #check(x: Tensor): void {
    checkInput('RealNVP', x, 4, this.inChannels);
    const multiple = 2 ** (this.scales - 1);
    if (x.shape[2] % multiple || x.shape[3] % multiple)
      throw new RangeError(
        `RealNVP: images of ${x.shape[2]} x ${x.shape[3]}, expected multiples of ${multiple} for ${this.scales} scales`,
      );
  }
}
