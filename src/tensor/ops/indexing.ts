import { ndarray, type Shape } from '../../array/index.js';
import { apply, furtherOutput, type Op } from '../op.js';
import { axisOf, range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { constant } from './leaves.js';
import { expand, reshape } from './shape.js';

type Axis = { axis: number };
const mustBeInteger = (indices: Tensor, what: string): void => {
  if (indices.dtype !== 'int64' && indices.dtype !== 'int32')
    throw new TypeError(`${what}: indices must be int64 or int32, got ${indices.dtype}`);
};

const gatherOp: Op<Axis> = {
  name: 'gather',
  infer: ([x, indices], { axis }) => {
    mustBeInteger(indices, 'gather');
    return { shape: [...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)], dtype: x.dtype };
  },
  emit: (e, { inputs: [x, indices] }, { axis }) =>
    e.node('Gather', [e.name(x), e.name(indices)], { axis: { i: axis } }),
  gradient: ({ inputs: [x, indices], attrs: { axis } }) => [
    (g) => {
      const n = indices.size;
      const rows = reshape(g, [...x.shape.slice(0, axis), n, ...x.shape.slice(axis + 1)]);
      const index = expand(
        reshape(
          indices,
          range(x.rank).map((i) => (i === axis ? n : 1)),
        ),
        rows.shape,
      );
      return scatterAdd(x.shape, index, rows, axis);
    },
    null,
  ],
};
/** Slices of `x` along `axis` at integer positions of any shape (an embedding look-up when axis is 0). */
export const gather = (x: Tensor, indices: Tensor, axis = 0): Tensor =>
  apply(gatherOp, [x, indices], { axis: axisOf(axis, x.rank, 'gather') });

const gatherElementsOp: Op<Axis> = {
  name: 'gatherElements',
  infer: ([x, indices]) => {
    mustBeInteger(indices, 'gatherElements');
    if (indices.rank !== x.rank) throw new RangeError(`gatherElements: indices [${indices.shape}] for [${x.shape}]`);
    return { shape: indices.shape, dtype: x.dtype };
  },
  emit: (e, { inputs: [x, indices] }, { axis }) =>
    e.node('GatherElements', [e.name(x), e.name(indices)], { axis: { i: axis } }),
  gradient: ({ inputs: [x, indices], attrs: { axis } }) => [(g) => scatterAdd(x.shape, indices, g, axis), null],
};
/** torch.gather: out[i][j] = x[index[i][j]][j] for axis 0. */
export const gatherElements = (x: Tensor, indices: Tensor, axis: number): Tensor =>
  apply(gatherElementsOp, [x, indices], { axis: axisOf(axis, x.rank, 'gatherElements') });

const scatterAddOp: Op<Axis & { shape: Shape }> = {
  name: 'scatterAdd',
  infer: ([, values], { shape }) => ({ shape, dtype: values.dtype }),
  emit: (e, { inputs: [indices, values] }, { axis, shape }) => {
    const [zeros] = e.node('Expand', [
      e.constant(ndarray([0], [], values.dtype)),
      e.constant(ndarray(shape, [shape.length], 'int64')),
    ]);
    return e.node('ScatterElements', [zeros, e.name(indices), e.name(values)], {
      axis: { i: axis },
      reduction: { s: 'add' },
    });
  },
  gradient: ({ inputs: [indices], attrs: { axis } }) => [null, (g) => gatherElements(g, indices, axis)],
};
/** Zeros of `shape` with every value added at its index along `axis`: torch.scatter_add. */
export const scatterAdd = (shape: Shape, indices: Tensor, values: Tensor, axis: number): Tensor => {
  mustBeInteger(indices, 'scatterAdd');
  return apply(scatterAddOp, [indices, values], { axis, shape });
};

const topKOp: Op<{ k: number; axis: number; largest: boolean }> = {
  name: 'topK',
  infer: ([x], { k, axis }) => ({ shape: x.shape.map((d, i) => (i === axis ? k : d)), dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { k, axis, largest }) =>
    e.node(
      'TopK',
      [e.name(x), e.constant(ndarray([k], [1], 'int64'))],
      { axis: { i: axis }, largest: { i: Number(largest) } },
      { outputs: [true, true] },
    ),
  gradient: ({ inputs: [x], output, attrs: { axis } }) => [
    (g) => scatterAdd(x.shape, furtherOutput(output, 1), g, axis),
  ],
  further: (node) => [{ shape: node.shape, dtype: 'int64' }],
};
/** The k largest (or smallest) elements along an axis, in order, and their positions (int64). */
export function topK(x: Tensor, k: number, axis = -1, largest = true): { values: Tensor; indices: Tensor } {
  const values = apply(topKOp, [x], { k, axis: axisOf(axis, x.rank, 'topK'), largest });
  return { values, indices: furtherOutput(values, 1) };
}
export const sort = (x: Tensor, axis = -1, descending = false) =>
  topK(x, x.shape[axisOf(axis, x.rank, 'sort')], axis, descending);

/** One-hot rows (float32) of integer classes: [...indices.shape, depth]. */
export function oneHot(indices: Tensor, depth: number): Tensor {
  mustBeInteger(indices, 'oneHot');
  const classes = constant(ndarray(range(depth), [depth], indices.dtype as 'int64'));
  return reshape(indices, [...indices.shape, 1])
    .equal(classes)
    .cast('float32');
}

/** 0, 1, ..., n - 1 as int64. */
export const arange = (n: number): Tensor => constant(ndarray(range(n), [n], 'int64'));
