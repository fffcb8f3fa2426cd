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
const statistic = (node: Tensor, { axes }: NormalizeAttrs) => ({
  shape: node.shape.map((d, i) => (i < node.rank - axes ? d : 1)),
  dtype: node.dtype,
});

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
      {
        outputs: [true, e.uses(node, 1), e.uses(node, 2)],
      },
    );
  },
  gradient: ({ inputs: [x], output: y, attrs: { axes } }) => [
    (g) => {
      const over = trailing(x, axes);
      const centred = g.sub(g.mean(over, true));
      return centred.sub(y.mul(g.mul(y).mean(over, true))).mul(furtherOutput(y, 2));
    },
  ],
  further: [
    // mean
    {
      infer: statistic,
      gradient: ({ inputs: [x], attrs: { axes } }) => [
        (g) => g.mul(1 / sizeOf(trailing(x, axes).map((i) => x.shape[i]))).expand(x.shape),
      ],
    },
    // 1 / sqrt(variance + eps)
    {
      infer: statistic,
      gradient: ({ inputs: [x], output: y, attrs: { axes } }) => [
        (g) => {
          const n = sizeOf(trailing(x, axes).map((i) => x.shape[i]));
          return y.mul(g.mul(furtherOutput(y, 2).square()).mul(-1 / n));
        },
      ],
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
