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
      const projection = y.mul(g.mul(y).mean(over, true)).add(g.mean(over, true));
      let dx = g.sub(projection).mul(inverse);
      if (ofMean) dx = dx.add(ofMean.mul(1 / n));
      if (ofInverse) dx = dx.add(y.mul(ofInverse.mul(inverse.square()).mul(-1 / n)));
      return dx;
    },
  ],
};
/** (x - mean) / sqrt(biased variance + eps) over the last `axes` axes: layer norm without its affine part. */
export const normalize = (x: Tensor, axes = 1, eps = 1e-5): Tensor => apply(normalizeOp, [x], { axes, eps });

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
