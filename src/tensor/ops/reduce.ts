import { ndarray } from '../../array/index.js';
import { apply, type GradientRules, type NodeView, type Op } from '../op.js';
import { axisOf, range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { constant } from './leaves.js';
import { matmul } from './linear.js';

type Axes = { axes: readonly number[]; keepDims: boolean };

const reducedShape = (x: Tensor, { axes, keepDims }: Axes) =>
  keepDims ? x.shape.map((d, i) => (axes.includes(i) ? 1 : d)) : x.shape.filter((_, i) => !axes.includes(i));

/** Puts the reduced axes back as ones, so that the value broadcasts against the input. */
const restore = (y: Tensor, x: Tensor, { axes }: Axes): Tensor =>
  y.reshape(x.shape.map((d, i) => (axes.includes(i) ? 1 : d)));

const countOf = (x: Tensor, { axes }: Axes): number => axes.reduce((n, a) => n * x.shape[a], 1);

function reduction(name: string, type: string, gradient?: (view: NodeView<Axes>) => GradientRules) {
  const op: Op<Axes> = {
    name,
    infer: ([x], attrs) => ({ shape: reducedShape(x, attrs), dtype: x.dtype }),
    emit: (e, { inputs: [x] }, { axes, keepDims }) =>
      e.node(type, [e.name(x), e.constant(ndarray(axes, [axes.length], 'int64'))], {
        keepdims: { i: Number(keepDims) },
      }),
    gradient,
  };
  return (x: Tensor, axes: number | readonly number[] = range(x.rank), keepDims = false): Tensor => {
    const list = (typeof axes === 'number' ? [axes] : axes).map((a) => axisOf(a, x.rank, name));
    if (list.length === 0) return x;
    return apply(op, [x], { axes: list.sort((a, b) => a - b), keepDims });
  };
}

export const sum = reduction('sum', 'ReduceSum', ({ inputs: [x], attrs }) => [
  (g) => restore(g, x, attrs).expand(x.shape),
]);
/** Of x², in one pass. */
export const sumOfSquares = reduction('sumOfSquares', 'ReduceSumSquare', ({ inputs: [x], attrs }) => [
  (g) => restore(g, x, attrs).mul(2).mul(x),
]);
export const mean = reduction('mean', 'ReduceMean', ({ inputs: [x], attrs }) => [
  (g) =>
    restore(g, x, attrs)
      .mul(1 / countOf(x, attrs))
      .expand(x.shape),
]);
// Ties share the gradient evenly, as PyTorch's amax and amin do.
const toExtreme = ({ inputs: [x], output, attrs }: NodeView<Axes>): GradientRules => [
  (g) => {
    const hit = x.equal(restore(output, x, attrs)).cast('float32');
    return hit.div(sum(hit, attrs.axes, true)).mul(restore(g, x, attrs));
  },
];
export const max = reduction('max', 'ReduceMax', toExtreme);
export const min = reduction('min', 'ReduceMin', toExtreme);
/** The gradient divides by the factors, so it needs them non-zero. */
export const prod = reduction('prod', 'ReduceProd', ({ inputs: [x], output, attrs }) => [
  (g) => restore(g.mul(output), x, attrs).div(x),
]);

/** Undoes broadcasting: sums `x` down to `shape`. */
export function sumTo(x: Tensor, shape: readonly number[]): Tensor {
  const lead = x.rank - shape.length;
  const axes = range(x.rank).filter((i) => i < lead || (shape[i - lead] === 1 && x.shape[i] !== 1));
  if (axes.length === 0) return x;
  // Leading axes add up faster as a product with a row of ones than as a reduction (0.55 of the time).
  const rows = axes.reduce((n, a) => n * x.shape[a], 1);
  if (x.dtype === 'float32' && axes.every((a, i) => a === i) && rows > 1 && rows < x.size)
    return matmul(constant(1).expand([1, rows]), x.reshape([rows, x.size / rows])).reshape(shape);
  return sum(x, axes).reshape(shape);
}

type Axis = { axis: number };
const argmaxOp: Op<Axes> = {
  name: 'argmax',
  infer: ([x], attrs) => ({ shape: reducedShape(x, attrs), dtype: 'int64' }),
  emit: (e, { inputs: [x] }, { axes, keepDims }) =>
    e.node('ArgMax', [e.name(x)], { axis: { i: axes[0] }, keepdims: { i: Number(keepDims) } }),
};
/** Index (int64) of the first largest element along an axis. */
export const argmax = (x: Tensor, axis: number, keepDims = false): Tensor =>
  apply(argmaxOp, [x], { axes: [axisOf(axis, x.rank, 'argmax')], keepDims });

const cumsumOp: Op<Axis & { reverse: boolean }> = {
  name: 'cumsum',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { axis, reverse }) =>
    e.node('CumSum', [e.name(x), e.constant(ndarray([axis], [], 'int64'))], { reverse: { i: Number(reverse) } }),
  gradient: ({ attrs }) => [(g) => apply(cumsumOp, [g], { ...attrs, reverse: !attrs.reverse })],
};
export const cumsum = (x: Tensor, axis: number): Tensor =>
  apply(cumsumOp, [x], { axis: axisOf(axis, x.rank, 'cumsum'), reverse: false });

/** Unbiased (divided by n - 1) or biased variance. */
export function variance(x: Tensor, axes: number | readonly number[], keepDims = false, unbiased = false): Tensor {
  const centred = x.sub(mean(x, axes, true));
  const v = mean(centred.square(), axes, keepDims);
  const n = x.size / v.size;
  return unbiased ? v.mul(n / (n - 1)) : v;
}
