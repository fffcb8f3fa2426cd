import { ndarray, sizeOf } from '../../array/index.js';
import { apply, furtherOutput, type Op } from '../op.js';
import { axisOf, range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { matmul } from './linear.js';

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

type NormalizeAttrs = { axes: number; eps: number };
const trailing = (x: Tensor, axes: number): number[] => range(axes, x.rank - axes);
const normalizeOp: Op<NormalizeAttrs> = {
  name: 'normalize',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, node, { axes, eps }) => {
    const x = node.inputs[0];
    const shape = x.shape.slice(x.rank - axes);
    const ones = e.constant(ndarray(new Float32Array(sizeOf(shape)).fill(1), shape));
    return e.node(
      'LayerNormalization',
      [e.name(x), ones],
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
  g.sub(y.mul(g.mul(y).mean(over, true)).add(g.mean(over, true))).mul(inverse);
const throughInverse = (g: Tensor, y: Tensor, inverse: Tensor, n: number): Tensor =>
  y.mul(g.mul(inverse.square()).mul(-1 / n));

/** (x - mean) / sqrt(biased variance + eps) over the last `axes` axes: layer norm without its affine part. */
export const normalize = (x: Tensor, axes = 1, eps = 1e-5): Tensor => apply(normalizeOp, [x], { axes, eps });

type GroupNormAttrs = { groups: number; eps: number };
/** Of x [N, C, ...], weight and bias [C, 1, ...]. */
const groupNormOp: Op<GroupNormAttrs> = {
  name: 'groupNorm',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs: [x, weight, bias] }, { groups, eps }) => {
    const int64 = (values: readonly number[]) => e.constant(ndarray(values, [values.length], 'int64'));
    const rows = [x.shape[0], groups, x.size / (x.shape[0] * groups)];
    const ones = e.constant(ndarray(new Float32Array(rows[2]).fill(1), [rows[2]]));
    const [normal, , inverse] = e.node(
      'LayerNormalization',
      [e.node('Reshape', [e.name(x), int64(rows)])[0], ones],
      { axis: { i: 2 }, epsilon: { f: eps } },
      { outputs: [true, false, true] },
    );
    const [y] = e.node('Reshape', [normal, int64(x.shape)]);
    return [...e.node('Add', [e.node('Mul', [y, e.name(weight)])[0], e.name(bias)]), y, inverse];
  },
  // Further outputs: x normalised, before the affine part, and 1 / sqrt(variance + eps) of each group [N, groups, 1].
  further: ({ inputs: [x] }, { groups }) => [
    { shape: x.shape, dtype: x.dtype },
    { shape: [x.shape[0], groups, 1], dtype: x.dtype },
  ],
  gradient: ({ inputs: [x, weight], output, attrs: { groups } }) => {
    const [n, c] = x.shape;
    const rows = [n, groups, x.size / (n * groups)];
    const [normal, inverse] = [furtherOutput(output, 1), furtherOutput(output, 2)];
    // Sums over positions, from which all other sums follow.
    const positions = range(x.rank - 2, 2);
    const products = (g: Tensor) => g.mul(normal).sum(positions, true);
    const sums = (g: Tensor) => g.sum(positions, true);
    return [
      (g, [ofNormal, ofInverse]) => {
        const scale = weight
          .reshape([groups, c / groups])
          .mul(inverse)
          .reshape([n, ...weight.shape]);
        const perGroup = (channels: Tensor) =>
          channels
            .mul(scale)
            .reshape([n, groups, c / groups])
            .sum(2, true)
            .mul(1 / rows[2]);
        const y = normal.reshape(rows);
        let dx = g
          .mul(scale)
          .reshape(rows)
          .sub(y.mul(perGroup(products(g))))
          .sub(perGroup(sums(g)));
        if (ofNormal) dx = dx.add(throughNormalize(ofNormal.reshape(rows), y, inverse, [2]));
        if (ofInverse) dx = dx.add(throughInverse(ofInverse, y, inverse, rows[2]));
        return dx.reshape(x.shape);
      },
      (g) => products(g).sum(0),
      (g) => sums(g).sum(0),
    ];
  },
};
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
  return matmul(softmax(scores), v);
}
