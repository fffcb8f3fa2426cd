import { ndarray, type Shape, sizeOf } from '../../array/index.js';
import { once } from '../once.js';
import { apply, type Emitter, furtherOutput, type Op } from '../op.js';
import { axisOf, broadcast, range, sameShape } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { channelProducts, scaleShift } from './channels.js';
import { constant } from './leaves.js';
import { matmul } from './linear.js';
import { sumTo } from './reduce.js';

type Axis = { axis: number };

const softmaxOp: Op<Axis> = {
  name: 'softmax',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { axis }) => e.node('Softmax', [e.name(x)], { axis: { i: axis } }),
  gradient: ({ output: y, attrs: { axis } }) => [
    (g) => {
      const gy = g.mul(y);
      return gy.sub(y.mul(gy.sum(axis, true)));
    },
  ],
};
export const softmax = (x: Tensor, axis = -1): Tensor =>
  apply(softmaxOp, [x], { axis: axisOf(axis, x.rank, 'softmax') });

const logSoftmaxOp: Op<Axis> = {
  name: 'logSoftmax',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { axis }) => e.node('LogSoftmax', [e.name(x)], { axis: { i: axis } }),
  gradient: ({ output: y, attrs: { axis } }) => [(g) => g.sub(y.exp().mul(g.sum(axis, true)))],
};
export const logSoftmax = (x: Tensor, axis = -1): Tensor =>
  apply(logSoftmaxOp, [x], { axis: axisOf(axis, x.rank, 'logSoftmax') });

const scales = new WeakMap<Emitter, Map<string, string>>();
/** The scale of a normalisation without one; a graph has each but once, since those of images are megabytes. */
function ones(e: Emitter, shape: Shape): string {
  const made = once(scales, e, () => new Map<string, string>());
  return once(made, `${shape}`, () => e.constant(ndarray(new Float32Array(sizeOf(shape)).fill(1), shape)));
}

type NormalizeAttrs = { axes: number; eps: number };
const trailing = (x: Tensor, axes: number): number[] => range(axes, x.rank - axes);
const normalizeOp: Op<NormalizeAttrs> = {
  name: 'normalize',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, node, { axes, eps }) => {
    const x = node.inputs[0];
    const shape = x.shape.slice(x.rank - axes);
    return e.node(
      'LayerNormalization',
      [e.name(x), ones(e, shape)],
      { axis: { i: x.rank - axes }, epsilon: { f: eps } },
      { outputs: [true, e.uses(node, 1), e.uses(node, 2)] },
    );
  },
  // Further outputs: the mean, and 1 / sqrt(variance + eps).
  further: (node, { axes }) => {
    const shape = node.shape.map((d, i) => (i < node.rank - axes ? d : 1));
    return [
      { shape, dtype: node.dtype },
      { shape, dtype: node.dtype },
    ];
  },
  gradient: ({ inputs: [x], output: y, attrs: { axes } }) => [
    (g, [ofMean, ofInverse]) => {
      const over = trailing(x, axes);
      const n = sizeOf(over.map((i) => x.shape[i]));
      const inverse = furtherOutput(y, 2);
      let dx = throughNormalize(g, y, inverse, over);
      if (ofMean) dx = dx.add(ofMean.mul(1 / n));
      if (ofInverse) dx = dx.add(throughInverse(ofInverse, y, inverse, n));
      return dx;
    },
  ],
};
const throughNormalize = (g: Tensor, y: Tensor, inverse: Tensor, over: number[]): Tensor =>
  g
    .sub(y.mul(productMeans(g, y, over)))
    .sub(g.mean(over, true))
    .mul(inverse);
/** Means of g y. Where g = h s with a scale s for every sample (adaLN), the gradient of s has the products h y already. */
function productMeans(g: Tensor, y: Tensor, over: number[]): Tensor {
  const plain = () => g.mul(y).mean(over, true);
  if (g.op.name !== 'mul' || y.rank !== 3 || over.length !== 1) return plain();
  const [h, s] = g.inputs;
  const [n, , width] = y.shape;
  if (!sameShape(h.shape, y.shape) || !sameShape(s.shape, [n, 1, width])) return plain();
  return matmul(h.mul(y), s.mul(1 / width).reshape([n, width, 1]));
}
const throughInverse = (g: Tensor, y: Tensor, inverse: Tensor, n: number): Tensor =>
  y.mul(g.mul(inverse.square()).mul(-1 / n));

/** (x - mean) / sqrt(biased variance + eps) over the last `axes` axes: layer norm without its affine part. */
export const normalize = (x: Tensor, axes = 1, eps = 1e-5): Tensor => apply(normalizeOp, [x], { axes, eps });

export type GroupNormAttrs = { groups: number; eps: number };
/**
 * Of x [N, C, ...], weight and bias [C, 1, ...]. Further outputs: two factors whose product is x normalised, before the
 * affine part (one like x, one for every channel [N, C, 1, ...]), and 1 / sqrt(variance + eps) for every channel.
 */
const groupNormOp: Op<GroupNormAttrs> = {
  name: 'groupNorm',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, node, { groups, eps }) => {
    const [x, weight, bias] = node.inputs;
    const int64 = (values: readonly number[]) => e.constant(ndarray(values, [values.length], 'int64'));
    const [n, c] = x.shape;
    const rows = [n, groups, x.size / (n * groups)];
    const [normal, , inverse] = e.node(
      'LayerNormalization',
      [e.node('Reshape', [e.name(x), int64(rows)])[0], ones(e, [rows[2]])],
      { axis: { i: 2 }, epsilon: { f: eps } },
      { outputs: [true, false, true] },
    );
    const [y] = e.node('Reshape', [normal, int64(x.shape)]);
    const affine = e.node('Add', [e.node('Mul', [y, e.name(weight)])[0], e.name(bias)]);
    if (!e.uses(node, 2) && !e.uses(node, 3)) return [...affine, y];
    const [ofChannels] = e.node('Expand', [inverse, int64([n, groups, c / groups])]);
    return [...affine, y, ones(e, channelsOf(x)), ...e.node('Reshape', [ofChannels, int64(channelsOf(x))])];
  },
  further: ({ inputs: [x] }) => [x.shape, channelsOf(x), channelsOf(x)].map((shape) => ({ shape, dtype: x.dtype })),
  gradient: ({ inputs: [x, weight], output, attrs: { groups } }) => {
    const [normal, factor, inverse] = [1, 2, 3].map((i) => furtherOutput(output, i));
    // Sums over positions, from which all other sums follow.
    const products = (g: Tensor) => channelProducts(g, normal).mul(factor);
    const positions = sizeOf(x.shape.slice(2));
    return [
      (g, [ofNormal, , ofInverse]) => {
        const scale = inverse.mul(weight);
        const average = (values: Tensor, by: number) => groupAverage(values.mul(scale), groups, by);
        const along = average(products(g), -1 / positions).mul(factor);
        let dx = scaleShift(g, scale, average(g.mean(positionsOf(x), true), -1), scaleShift(normal, along));
        // Only the factors' product is ever read, so that all of its gradient is found at one of them.
        if (ofNormal) dx = dx.add(throughGroups(ofNormal.div(factor), normal.mul(factor), inverse, groups));
        if (ofInverse) {
          const slope = groupAverage(ofInverse.mul(inverse.square()), groups, -1 / positions);
          dx = dx.add(normal.mul(slope.mul(factor)));
        }
        return dx;
      },
      (g) => products(g).sum(0),
      (g) => g.mean(positionsOf(x), true).mul(positions).sum(0),
    ];
  },
};
const positionsOf = (x: Tensor): number[] => range(x.rank - 2, 2);
/** The shape of one value for every sample and channel. */
const channelsOf = (x: Tensor): number[] => x.shape.map((d, i) => (i < 2 ? d : 1));

/** Averages over groups of channels, of values for every channel [N, C, 1, ...], times a factor; again for every channel. */
function groupAverage(values: Tensor, groups: number, factor = 1): Tensor {
  const [n, c] = values.shape;
  const size = c / groups;
  const rows = values.reshape([n, c]);
  if (c > 512) {
    const averages = rows.reshape([n, groups, size]).mean(2, true).mul(factor);
    return averages.expand([n, groups, size]).reshape(values.shape);
  }
  // One small product is less than four small steps.
  return matmul(rows, sameGroup(c, size), { alpha: factor / size }).reshape(values.shape);
}
const groupMatrices = new Map<string, Tensor>();
/** [C, C], 1 where both channels are of one group. */
function sameGroup(c: number, size: number): Tensor {
  const group = (channel: number) => Math.floor(channel / size);
  const ones = () => Float32Array.from({ length: c * c }, (_, i) => Number(group(Math.floor(i / c)) === group(i % c)));
  return once(groupMatrices, `${c} ${size}`, () => constant(ndarray(ones(), [c, c])));
}

const throughGroups = (g: Tensor, y: Tensor, inverse: Tensor, groups: number): Tensor => {
  const average = (x: Tensor) => groupAverage(x.mean(positionsOf(x), true), groups);
  return g
    .sub(y.mul(average(g.mul(y))))
    .sub(average(g))
    .mul(inverse);
};

/**
 * The same in terms of sums over positions: three passes over x, none of which mixes channels.
 * @param inputs x, weight, bias, and an offset [N, C, 1, ...] for what is normalised to be x + offset.
 * @param inPlace scales x, not what was centred for its variance, which then need not stay; a rounding more.
 */
export function groupNormByChannels(
  [x, weight, bias, offset]: readonly Tensor[],
  { groups, eps }: GroupNormAttrs,
  inPlace: boolean,
): Tensor[] {
  const plusOffset = (y: Tensor) => (offset ? y.add(offset) : y);
  const shift = plusOffset(groupAverage(plusOffset(x.mean(positionsOf(x), true)), groups, -1));
  const centred = x.add(shift);
  const squares = channelProducts(centred, centred);
  const inverse = groupAverage(squares, groups, squares.size / x.size)
    .add(eps)
    .rsqrt();
  const scale = inverse.mul(weight);
  const y = inPlace
    ? scaleShift(x, scale, shift.mul(scale).add(bias))
    : scaleShift(centred, scale, bias.expand(squares.shape));
  return [y, centred, inverse, inverse];
}

/**
 * Normalises x [N, C, ...] over each of `groups` groups of channels and all positions, then scales and shifts every
 * channel by weight [C] and bias [C] (Wu & He 2018).
 * @throws RangeError when the groups do not divide the channels, or weight or bias have another length.
 */
export function groupNorm(x: Tensor, groups: number, weight: Tensor, bias: Tensor, eps = 1e-5): Tensor {
  const channels = x.shape[1];
  if (channels % groups || weight.size !== channels || bias.size !== channels)
    throw new RangeError(
      `groupNorm: ${groups} groups, weight [${weight.shape}] and bias [${bias.shape}] for an input [${x.shape}]`,
    );
  const perChannel = [channels, ...x.shape.slice(2).map(() => 1)];
  return apply(groupNormOp, [x, weight.reshape(perChannel), bias.reshape(perChannel)], { groups, eps });
}

type Nothing = Record<string, never>;
/** softmax(scores) v. Further output: the softmax. */
const attendOp: Op<Nothing> = {
  name: 'attend',
  infer: ([scores, v]) => {
    const batch = broadcast(scores.shape.slice(0, -2), v.shape.slice(0, -2), 'attention');
    return { shape: [...batch, scores.shape.at(-2)!, v.shape.at(-1)!], dtype: v.dtype };
  },
  emit: (e, { inputs: [scores, v] }) => {
    const [weights] = e.node('Softmax', [e.name(scores)], { axis: { i: -1 } });
    return [...e.node('MatMul', [weights, e.name(v)]), weights];
  },
  further: ({ inputs: [scores] }) => [scores],
  gradient: ({ inputs: [scores, v], output: y }) => {
    const weights = furtherOutput(y, 1);
    return [
      (g, [ofWeights]) => {
        // The softmax's rows times their slopes add up to y times its gradient, which is narrower (Dao et al. 2022).
        const slope = matmul(g, v, { transB: true }).sub(g.mul(y).sum(-1, true));
        const dx = sumTo(slope.mul(weights), scores.shape);
        if (!ofWeights) return dx;
        return dx.add(ofWeights.sub(ofWeights.mul(weights).sum(-1, true)).mul(weights));
      },
      (g) => sumTo(matmul(weights, g, { transA: true }), v.shape),
    ];
  },
};

export interface AttentionOptions {
  /** Added to the scores (float) or keeping them (bool); broadcasts to [..., queries, keys]. */
  mask?: Tensor;
  /** Default 1 / sqrt(width of a head). */
  scale?: number;
}

/** softmax(q kᵀ scale + mask) v for q [..., Q, D], k [..., K, D], v [..., K, E] (Vaswani et al. 2017). */
export function scaledDotProductAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { mask, scale }: AttentionOptions = {},
): Tensor {
  let scores = matmul(q, k, { transB: true, alpha: scale ?? 1 / Math.sqrt(q.shape.at(-1)!) });
  if (mask) scores = scores.add(mask.dtype === 'bool' ? mask.not().cast('float32').mul(-1e30) : mask);
  if (scores.shape.at(-1) !== v.shape.at(-2))
    throw new RangeError(`attention: scores [${scores.shape}] do not fit values [${v.shape}]`);
  return apply(attendOp, [scores, v], {});
}
