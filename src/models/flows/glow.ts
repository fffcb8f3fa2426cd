import { zeros } from '../../array/index.js';
import { BatchNorm, Conv2d, Module, ones, parameter } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { concat, relu, type Tensor, type Variable } from '../../tensor/index.js';
import { ActNorm } from './actNorm.js';
import { checkInput, type Flow, type FromLatent, noLogDet, sumPerSample, type ToLatent } from './flow.js';
import { Invertible1x1Conv, LuInvertible1x1Conv } from './invertible1x1.js';
import { squeeze2x2, unsqueeze2x2 } from './squeeze.js';

/** Batch norm before each of three convolutions; the last begins at zero. */
class CouplingNet extends Module {
  readonly inNorm: BatchNorm;
  readonly inConv: Conv2d;
  readonly midNorm: BatchNorm;
  readonly midConv: Conv2d;
  readonly outNorm: BatchNorm;
  readonly outConv: Conv2d;

  constructor(channels: number, midChannels: number, rng: Generator) {
    super();
    this.inNorm = new BatchNorm(channels);
    this.inConv = new Conv2d(channels, midChannels, 3, { padding: 1, bias: false }, rng);
    this.midNorm = new BatchNorm(midChannels);
    this.midConv = new Conv2d(midChannels, midChannels, 1, { bias: false }, rng);
    this.outNorm = new BatchNorm(midChannels);
    this.outConv = new Conv2d(midChannels, 2 * channels, 3, { padding: 1 }, rng);
    for (const { weight } of [this.inConv, this.midConv]) weight.set(rng.normal(weight.shape, 0, 0.05));
    for (const v of this.outConv.parameters()) v.set(zeros(v.shape));
  }

  forward(x: Tensor): Tensor {
    const first = this.inConv.forward(relu(this.inNorm.forward(x)));
    const second = this.midConv.forward(relu(this.midNorm.forward(first)));
    return this.outConv.forward(relu(this.outNorm.forward(second)));
  }
}

/** z₁ = (x₁ + t) exp(s) with s = scale tanh(...), both from the second half of the channels, which stays. */
class Coupling extends Module implements Flow {
  readonly nn: CouplingNet;
  /** [C / 2, 1, 1] */
  readonly scale: Variable;

  constructor(
    readonly half: number,
    midChannels: number,
    rng: Generator,
  ) {
    super();
    this.nn = new CouplingNet(half, midChannels, rng);
    this.scale = parameter(ones([half, 1, 1]));
  }

  forward(x: Tensor): ToLatent {
    const { change, kept, s, t } = this.#parts(x);
    return { z: concat([change.add(t).mul(s.exp()), kept], 1), logDet: sumPerSample(s) };
  }

  inverse(z: Tensor): FromLatent {
    const { change, kept, s, t } = this.#parts(z);
    return { x: concat([change.mul(s.neg().exp()).sub(t), kept], 1), logDet: sumPerSample(s).neg() };
  }

  #parts(x: Tensor) {
    const { half } = this;
    const kept = x.slice(1, half, 2 * half);
    const st = this.nn.forward(kept);
    return {
      change: x.slice(1, 0, half),
      kept,
      s: st
        .slice(1, 0, 2 * half, 2)
        .tanh()
        .mul(this.scale),
      t: st.slice(1, 1, 2 * half, 2),
    };
  }
}

class FlowStep extends Module implements Flow {
  readonly norm: ActNorm;
  readonly conv: Invertible1x1Conv | LuInvertible1x1Conv;
  readonly coup: Coupling;

  constructor(channels: number, midChannels: number, lu: boolean, rng: Generator) {
    super();
    this.norm = new ActNorm([channels, 1, 1]);
    this.conv = lu ? new LuInvertible1x1Conv(channels, rng) : new Invertible1x1Conv(channels, rng);
    this.coup = new Coupling(channels / 2, midChannels, rng);
  }

  forward(x: Tensor): ToLatent {
    const normed = this.norm.forward(x);
    const mixed = this.conv.forward(normed.z);
    const { z, logDet } = this.coup.forward(mixed.z);
    return { z, logDet: normed.logDet.add(mixed.logDet).add(logDet) };
  }

  inverse(z: Tensor): FromLatent {
    const coupled = this.coup.inverse(z);
    const mixed = this.conv.inverse(coupled.x);
    const { x, logDet } = this.norm.inverse(mixed.x);
    return { x, logDet: coupled.logDet.add(mixed.logDet).add(logDet) };
  }
}

/** Steps of flow, after which half of the channels go on, squeezed, to the next level. */
class Level extends Module implements Flow {
  readonly steps: readonly FlowStep[];
  readonly next?: Level;

  constructor(levels: number, steps: number, channels: number, midChannels: number, lu: boolean, rng: Generator) {
    super();
    this.steps = Array.from({ length: steps }, () => new FlowStep(channels, midChannels, lu, rng));
    if (levels > 1) this.next = new Level(levels - 1, steps, 2 * channels, midChannels, lu, rng);
  }

  forward(x: Tensor): ToLatent {
    let [z, logDet] = [x, noLogDet(x)];
    for (const step of this.steps) {
      const after = step.forward(z);
      [z, logDet] = [after.z, logDet.add(after.logDet)];
    }
    if (!this.next) return { z, logDet };
    const [onwards, rest] = halves(squeeze2x2(z));
    const next = this.next.forward(onwards);
    return { z: unsqueeze2x2(concat([next.z, rest], 1)), logDet: logDet.add(next.logDet) };
  }

  inverse(z: Tensor): FromLatent {
    let [x, logDet] = [z, noLogDet(z)];
    if (this.next) {
      const [onwards, rest] = halves(squeeze2x2(z));
      const next = this.next.inverse(onwards);
      [x, logDet] = [unsqueeze2x2(concat([next.x, rest], 1)), next.logDet];
    }
    for (const step of this.steps.toReversed()) {
      const before = step.inverse(x);
      [x, logDet] = [before.x, logDet.add(before.logDet)];
    }
    return { x, logDet };
  }
}

const halves = (x: Tensor): [Tensor, Tensor] => {
  const half = x.shape[1] / 2;
  return [x.slice(1, 0, half), x.slice(1, half, 2 * half)];
};

export interface GlowOptions {
  /** Default 3. */
  readonly inChannels?: number;
  /** Of the couplings' networks; default 512. */
  readonly midChannels?: number;
  /** Each level halves height and width; default 3. */
  readonly levels?: number;
  /** Of flow, at each level; default 32. */
  readonly steps?: number;
  /** Factorise the 1x1 convolutions; default true. */
  readonly lu?: boolean;
}

/**
 * Glow (Kingma and Dhariwal 2018): levels of steps, each of actnorm, invertible 1x1 convolution and affine coupling.
 * Its x are logits (see {@link Logit}); z has their shape. Before training, a batch starts the actnorms
 * ({@link initializingActNorm}).
 */
export class Glow extends Module implements Flow {
  readonly flows: Level;
  readonly inChannels: number;
  readonly levels: number;

  constructor(options: GlowOptions, rng: Generator) {
    super();
    const { inChannels = 3, midChannels = 512, levels = 3, steps = 32, lu = true } = options;
    if (!(Number.isInteger(levels) && levels > 0))
      throw new RangeError(`Glow: ${levels} levels, expected a whole number from 1`);
    [this.inChannels, this.levels] = [inChannels, levels];
    this.flows = new Level(levels, steps, 4 * inChannels, midChannels, lu, rng);
  }

  /** @throws RangeError for other channels, or sides that cannot be halved at every level. */
  forward(x: Tensor): ToLatent {
    this.#check(x);
    const { z, logDet } = this.flows.forward(squeeze2x2(x));
    return { z: unsqueeze2x2(z), logDet };
  }

  inverse(z: Tensor): FromLatent {
    this.#check(z);
    const { x, logDet } = this.flows.inverse(squeeze2x2(z));
    return { x: unsqueeze2x2(x), logDet };
  }

  #check(x: Tensor): void {
    checkInput('Glow', x, 4, this.inChannels);
    const multiple = 2 ** this.levels;
    if (x.shape[2] % multiple || x.shape[3] % multiple)
      throw new RangeError(
        `Glow: images of ${x.shape[2]} x ${x.shape[3]}, expected multiples of ${multiple} for ${this.levels} levels`,
      );
  }
}
