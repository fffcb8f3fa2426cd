import { ndarray } from '../../array/index.js';
import { buffer, Module } from '../../nn/index.js';
import { concat, constant, softplus, stack, type Tensor, type Variable, where } from '../../tensor/index.js';
import type { Conditioner } from './conditioners.js';
import { type Flow, type FromLatent, noLogDet, sumPerSample, type ToLatent } from './flow.js';

export type SplitMode = 'channel' | 'channel_inv' | 'checkerboard' | 'checkerboard_inv';
export const splitModes: readonly SplitMode[] = ['channel', 'channel_inv', 'checkerboard', 'checkerboard_inv'];

/** Where (c + h + ...) is even in all axes but the first and the last, 1 and of as many axes as x, less the last. */
function evenRows(shape: readonly number[]): Tensor {
  const inner = shape.slice(1, -1);
  const size = inner.reduce((a, b) => a * b, 1);
  const values = Uint8Array.from({ length: size }, (_, k) => {
    let [sum, rest] = [0, k];
    for (const n of inner.toReversed()) [sum, rest] = [sum + (rest % n), Math.floor(rest / n)];
    return Number(sum % 2 === 0);
  });
  return constant(ndarray(values, [1, ...inner, 1], 'bool'));
}

/**
 * Two parts of x: halves of the channels (the first the larger) or the squares of a checkerboard over all axes.
 * Of the modes' parts the first is what a coupling keeps; `_inv` changes them over.
 * @throws RangeError when there is nothing to split: one channel, or an odd last axis for the checkerboard.
 */
export function splitFeatures(x: Tensor, mode: SplitMode): [Tensor, Tensor] {
  const swapped = mode.endsWith('_inv');
  const inOrder = (a: Tensor, b: Tensor): [Tensor, Tensor] => (swapped ? [b, a] : [a, b]);
  if (mode.startsWith('channel')) {
    const channels = x.shape[1];
    if (channels < 2) throw new RangeError(`split '${mode}': ${channels} channels, expected at least 2`);
    const half = Math.ceil(channels / 2);
    return inOrder(x.slice(1, 0, half), x.slice(1, half, channels));
  }
  const last = x.rank - 1;
  const width = x.shape[last];
  if (width % 2) throw new RangeError(`split '${mode}': last axis of ${width}, expected an even number`);
  const [even, odd] = [x.slice(last, 0, width, 2), x.slice(last, 1, width, 2)];
  const rows = evenRows(x.shape);
  return inOrder(where(rows, odd, even), where(rows, even, odd));
}

/** Undoes {@link splitFeatures}. */
export function mergeFeatures(kept: Tensor, changed: Tensor, mode: SplitMode): Tensor {
  const [a, b] = mode.endsWith('_inv') ? [changed, kept] : [kept, changed];
  if (mode.startsWith('channel')) return concat([a, b], 1);
  const rows = evenRows(a.shape);
  const pairs = stack([where(rows, b, a), where(rows, a, b)], a.rank);
  return pairs.reshape([...a.shape.slice(0, -1), 2 * a.shape[a.rank - 1]]);
}

export interface AffineCouplingOptions {
  /** Default true; false shifts only, as in NICE. */
  readonly scale?: boolean;
  /**
   * From the network's answer s to the scale from latents to data: 'exp' exp(s), the default;
   * 'sigmoid' 1 / sigmoid(s + 2), as in Glow; 'sigmoid_inv' sigmoid(s + 2).
   */
  readonly scaleMap?: 'exp' | 'sigmoid' | 'sigmoid_inv';
  /** Default 'channel'. */
  readonly split?: SplitMode;
}

/**
 * Affine coupling (Dinh et al. 2017): one part of x stays, and a network of it scales and shifts the other:
 * x₂ = z₂ exp(s(z₁)) + t(z₁), inverted without inverting the network. The network's channels are t, s, t, s ...
 */
export class AffineCoupling extends Module implements Flow {
  constructor(
    readonly net: Conditioner,
    private readonly options: AffineCouplingOptions = {},
  ) {
    super();
    const { scaleMap = 'exp', split = 'channel' } = options;
    if (!['exp', 'sigmoid', 'sigmoid_inv'].includes(scaleMap))
      throw new RangeError(`AffineCoupling: scaleMap '${scaleMap}', expected exp, sigmoid or sigmoid_inv`);
    if (!splitModes.includes(split))
      throw new RangeError(`AffineCoupling: split '${split}', expected one of ${splitModes.join(', ')}`);
  }

  forward(x: Tensor): ToLatent {
    const { kept, changed, shift, logScale } = this.#parts(x);
    const back = changed.sub(shift);
    const z = mergeFeatures(kept, logScale ? back.mul(logScale.neg().exp()) : back, this.options.split ?? 'channel');
    return { z, logDet: logScale ? sumPerSample(logScale).neg() : noLogDet(x) };
  }

  inverse(z: Tensor): FromLatent {
    const { kept, changed, shift, logScale } = this.#parts(z);
    const scaled = logScale ? changed.mul(logScale.exp()) : changed;
    const x = mergeFeatures(kept, scaled.add(shift), this.options.split ?? 'channel');
    return { x, logDet: logScale ? sumPerSample(logScale) : noLogDet(z) };
  }

  #parts(x: Tensor): { kept: Tensor; changed: Tensor; shift: Tensor; logScale?: Tensor } {
    const { scale = true, scaleMap = 'exp', split = 'channel' } = this.options;
    const [kept, changed] = splitFeatures(x, split);
    const answer = this.net.forward(kept);
    const wanted = changed.shape[1] * (scale ? 2 : 1);
    if (answer.shape[1] !== wanted)
      throw new RangeError(`AffineCoupling: the network gives ${answer.shape[1]} channels, expected ${wanted}`);
    if (!scale) return { kept, changed, shift: answer };
    const [shift, s] = [answer.slice(1, 0, wanted, 2), answer.slice(1, 1, wanted, 2)];
    if (scaleMap === 'exp') return { kept, changed, shift, logScale: s };
    const logSigmoid = softplus(s.add(2).neg()).neg();
    return { kept, changed, shift, logScale: scaleMap === 'sigmoid' ? logSigmoid.neg() : logSigmoid };
  }
}

/** The coupling over a fixed mask b (Dinh et al. 2017): x = b z + (1 - b) (z exp(s(b z)) + t(b z)). */
export class MaskedAffineCoupling extends Module implements Flow {
  /** [1, ...shape], 1 where values stay. */
  readonly b: Variable;

  /** @param mask of one sample, of 0 and 1. Without `t` there is no shift, without `s` no scale. */
  constructor(
    mask: readonly number[],
    readonly t?: Conditioner,
    readonly s?: Conditioner,
    shape: readonly number[] = [mask.length],
  ) {
    super();
    const odd = mask.find((value) => value !== 0 && value !== 1);
    if (odd !== undefined) throw new RangeError(`MaskedAffineCoupling: mask holds ${odd}, expected 0 and 1`);
    this.b = buffer(ndarray(Float32Array.from(mask), [1, ...shape]));
  }

  forward(x: Tensor): ToLatent {
    const { kept, open, shift, scale } = this.#parts(x);
    return { z: kept.add(open.mul(x.sub(shift)).mul(scale.neg().exp())), logDet: sumPerSample(open.mul(scale)).neg() };
  }

  inverse(z: Tensor): FromLatent {
    const { kept, open, shift, scale } = this.#parts(z);
    return { x: kept.add(open.mul(z.mul(scale.exp()).add(shift))), logDet: sumPerSample(open.mul(scale)) };
  }

  #parts(x: Tensor) {
    if (x.rank !== this.b.rank || this.b.shape.some((n, i) => i > 0 && n !== x.shape[i]))
      throw new RangeError(`MaskedAffineCoupling: input [${x.shape}], expected [N, ${this.b.shape.slice(1)}]`);
    const kept = x.mul(this.b);
    const zero = x.mul(0);
    return {
      kept,
      open: this.b.neg().add(1),
      shift: this.t?.forward(kept) ?? zero,
      scale: this.s?.forward(kept) ?? zero,
    };
  }
}
