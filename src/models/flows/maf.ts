import { ndarray } from '../../array/index.js';
import { BatchNorm, Dropout, Module } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { relu, type Tensor } from '../../tensor/index.js';
import { MaskedLinear } from '../made.js';
import { checkInput, type Flow, type FromLatent, noLogDet, sumPerSample, type ToLatent } from './flow.js';

export interface MafOptions {
  readonly hiddenFeatures: number;
  /** Default 2. */
  readonly blocks?: number;
  /** Blocks of two layers with a skip; default true. */
  readonly residual?: boolean;
  /** Units see random prefixes of the variables, in place of all by turns; not with residual blocks. */
  readonly randomMask?: boolean;
  /** Default relu. */
  readonly activation?: (x: Tensor) => Tensor;
  /** Inside the blocks; default 0. */
  readonly dropout?: number;
  /** Inside the blocks; default false. */
  readonly batchNorm?: boolean;
}

/** A unit of degree d may see variables 1..d; an output of variable d sees those before it. */
type Degrees = readonly number[];

function maskedLinear(from: Degrees, to: Degrees, output: boolean, rng: Generator): MaskedLinear {
  const layer = new MaskedLinear(from.length, to.length, rng);
  const mask = to.flatMap((o) => from.map((i) => Number(output ? o > i : o >= i)));
  layer.mask.set(ndarray(Float32Array.from(mask), [to.length, from.length]));
  return layer;
}

class MaskedBlock extends Module {
  readonly linearLayers: readonly MaskedLinear[];
  readonly batchNormLayers: readonly BatchNorm[];
  readonly dropout: Dropout;

  constructor(
    readonly degrees: Degrees[],
    private readonly options: MafOptions,
    rng: Generator,
  ) {
    super();
    const { residual = true, batchNorm = false, dropout = 0 } = options;
    this.linearLayers = degrees.slice(1).map((to, i) => maskedLinear(degrees[i], to, false, rng));
    this.batchNormLayers = batchNorm ? degrees.slice(1).map((d) => new BatchNorm(d.length, { eps: 1e-3 })) : [];
    this.dropout = new Dropout(dropout);
    if (!residual) return;
    const last = this.linearLayers[this.linearLayers.length - 1];
    for (const v of last.parameters()) v.set(rng.uniform(v.shape, -1e-3, 1e-3));
  }

  forward(x: Tensor): Tensor {
    const { residual = true, activation = relu } = this.options;
    const normed = (y: Tensor, i: number) => this.batchNormLayers[i]?.forward(y) ?? y;
    const [first, second] = this.linearLayers;
    if (!residual) return this.dropout.forward(activation(first.forward(normed(x, 0))));
    const inner = activation(normed(first.forward(activation(normed(x, 0))), 1));
    return x.add(second.forward(this.dropout.forward(inner)));
  }
}

/** Smallest scale, so that the flow cannot collapse. */
const leastScale = 1e-3;
/** Of values in {@link MaskedAutoregressiveFlow.refine}: an infinite one would reach those before it as 0 · Infinity. */
const largest = 1e4;

/**
 * Masked autoregressive flow (Papamakarios et al. 2017): z_i = s_i x_i + m_i, scale and shift a masked network's (MADE's)
 * functions of the variables before i. Densities take one pass, samples one pass for each variable; the inverse
 * autoregressive flow, `new Inverted(maf)`, has it the other way round. s = sigmoid(u + 2) + 1e-3.
 */
export class MaskedAutoregressiveFlow extends Module implements Flow {
  readonly initialLayer: MaskedLinear;
  readonly blocks: readonly MaskedBlock[];
  readonly finalLayer: MaskedLinear;

  /** @throws RangeError for fewer than two features, or random masks with residual blocks. */
  constructor(
    readonly features: number,
    options: MafOptions,
    rng: Generator,
  ) {
    super();
    const { hiddenFeatures, blocks = 2, residual = true, randomMask = false } = options;
    if (!(Number.isInteger(features) && features >= 2))
      throw new RangeError(`MaskedAutoregressiveFlow: ${features} features, expected at least 2`);
    if (residual && randomMask)
      throw new RangeError('MaskedAutoregressiveFlow: randomMask is for blocks without residual, got both');
    const inputs = Array.from({ length: features }, (_, i) => i + 1);
    const after = (from: Degrees): Degrees => {
      const least = Math.min(Math.min(...from), features - 1);
      return Array.from({ length: hiddenFeatures }, (_, i) =>
        randomMask ? Number(rng.randint(least, features, [1]).data[0]) : (i % (features - 1)) + 1,
      );
    };
    let degrees = after(inputs);
    this.initialLayer = maskedLinear(inputs, degrees, false, rng);
    this.blocks = Array.from({ length: blocks }, () => {
      const chain = [degrees];
      for (let i = 0; i < (residual ? 2 : 1); i++) chain.push(after(chain[i]));
      degrees = chain[chain.length - 1];
      return new MaskedBlock(chain, options, rng);
    });
    const outputs = inputs.flatMap((d) => [d, d]);
    this.finalLayer = maskedLinear(degrees, outputs, true, rng);
  }

  forward(x: Tensor): ToLatent {
    const { scale, shift } = this.#affine(x);
    return { z: x.mul(scale).add(shift), logDet: sumPerSample(scale.log()) };
  }

  /** Each pass makes one more variable right. */
  inverse(z: Tensor): FromLatent {
    let [x, logDet] = [z.mul(0), noLogDet(z)];
    for (let i = 0; i < this.features; i++) {
      const { scale, shift } = this.#affine(x);
      x = z.sub(shift).div(scale);
      logDet = sumPerSample(scale.log()).neg();
    }
    return { x, logDet };
  }

  /**
   * One pass towards the inverse of z, from any x: as each variable depends on those before it alone, pass k makes at
   * least the first k right. All are right when a pass changes none. Values are kept finite for what comes after them.
   */
  refine(z: Tensor, x: Tensor): Tensor {
    const { scale, shift } = this.#affine(x);
    return z.sub(shift).div(scale).clamp(-largest, largest);
  }

  /** The network's answers are u, m of variable 1, then of variable 2 ... */
  #affine(x: Tensor): { scale: Tensor; shift: Tensor } {
    checkInput('MaskedAutoregressiveFlow', x, 2, this.features);
    const hidden = this.blocks.reduce<Tensor>((y, block) => block.forward(y), this.initialLayer.forward(x));
    const answer = this.finalLayer.forward(hidden).reshape([x.shape[0], this.features, 2]);
    const [u, shift] = [0, 1].map((k) => answer.slice(2, k, k + 1).squeeze(2));
    return { scale: u.add(2).sigmoid().add(leastScale), shift };
  }
}
