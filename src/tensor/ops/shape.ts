import { ndarray, type Shape } from '../../array/index.js';
import { apply, furtherOutput, type Op } from '../op.js';
import { axisOf, broadcast, range, sameShape, sizeOf } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { constant } from './leaves.js';
import { sumTo } from './reduce.js';

const int64 = (values: readonly number[]) => ndarray(values, [values.length], 'int64');

const reshapeOp: Op<{ shape: Shape }> = {
  name: 'reshape',
  infer: ([x], { shape }) => ({ shape, dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { shape }) =>
    e.node('Reshape', [e.name(x), e.constant(int64(shape))], { allowzero: { i: 1 } }),
  gradient: ({ inputs: [x] }) => [(g) => reshape(g, x.shape)],
};
/** The same elements in another shape; one dimension may be -1. @throws RangeError when the sizes differ. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const known = shape.reduce((n, d) => (d === -1 ? n : n * d), 1);
  const full = shape.map((d) => (d === -1 ? x.size / known : d));
  if (shape.filter((d) => d === -1).length > 1 || sizeOf(full) !== x.size || full.some((d) => !Number.isInteger(d)))
    throw new RangeError(`reshape: [${x.shape}] does not fit into [${shape}]`);
  if (sameShape(full, x.shape)) return x;
  const source = x.op === (reshapeOp as unknown) ? x.inputs[0] : x;
  return sameShape(full, source.shape) ? source : apply(reshapeOp, [source], { shape: full });
}

const transposeOp: Op<{ perm: readonly number[] }> = {
  name: 'transpose',
  infer: ([x], { perm }) => ({ shape: perm.map((p) => x.shape[p]), dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { perm }) => e.node('Transpose', [e.name(x)], { perm: { ints: perm } }),
  gradient: ({ attrs: { perm } }) => [
    (g) =>
      transpose(
        g,
        perm.map((_, i) => perm.indexOf(i)),
      ),
  ],
};
/** Reorders the axes; without `perm`, reverses them. */
export function transpose(x: Tensor, perm: readonly number[] = range(x.rank).reverse()): Tensor {
  const axes = perm.map((p) => axisOf(p, x.rank, 'transpose'));
  if (new Set(axes).size !== x.rank) throw new RangeError(`transpose: [${perm}] is no permutation of ${x.rank} axes`);
  if (axes.every((p, i) => p === i)) return x;
  // Moving only axes of length 1 leaves the elements where they are.
  const moved = axes.filter((p) => x.shape[p] !== 1);
  if (moved.every((p, i) => i === 0 || p > moved[i - 1]))
    return reshape(
      x,
      axes.map((p) => x.shape[p]),
    );
  return apply(transposeOp, [x], { perm: axes });
}

const expandOp: Op<{ shape: Shape }> = {
  name: 'expand',
  infer: ([x], { shape }) => ({ shape, dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { shape }) => e.node('Expand', [e.name(x), e.constant(int64(shape))]),
  gradient: ({ inputs: [x] }) => [(g) => sumTo(g, x.shape)],
};
/** Broadcasts to a shape. */
export function expand(x: Tensor, shape: Shape): Tensor {
  if (!sameShape(broadcast(x.shape, shape, 'expand'), shape))
    throw new RangeError(`expand: [${x.shape}] does not broadcast to [${shape}]`);
  return sameShape(x.shape, shape) ? x : apply(expandOp, [x], { shape });
}

type SliceAttrs = { axis: number; start: number; end: number; step: number };
const sliceOp: Op<SliceAttrs> = {
  name: 'slice',
  infer: ([x], { axis, start, end, step }) => ({
    shape: x.shape.map((d, i) => (i === axis ? Math.max(0, Math.ceil((end - start) / step)) : d)),
    dtype: x.dtype,
  }),
  emit: (e, { inputs: [x] }, { axis, start, end, step }) =>
    // Going backwards past the first element has no plain index: any very negative end means "to the start".
    e.node('Slice', [e.name(x), ...[start, end < 0 ? -(2 ** 31) : end, axis, step].map((v) => e.constant(int64([v])))]),
  gradient: ({ inputs: [x], attrs: { axis, start, step } }) => [
    (g) => {
      if (step < 0) return flip(g, axis);
      const spread = step === 1 ? g : dilate(g, axis, step);
      const after = x.shape[axis] - start - spread.shape[axis];
      return pad(
        spread,
        range(x.rank).map((i) => (i === axis ? [start, after] : [0, 0])),
      );
    },
  ],
};

/** Inserts step - 1 zeros between neighbours along an axis. */
export function dilate(x: Tensor, axis: number, step: number): Tensor {
  const split = x.reshape([...x.shape.slice(0, axis + 1), 1, ...x.shape.slice(axis + 1)]);
  const zeros = pad(
    split,
    range(split.rank).map((i) => (i === axis + 1 ? [0, step - 1] : [0, 0])),
  );
  const joined = zeros.reshape(x.shape.map((d, i) => (i === axis ? d * step : d)));
  return slice(joined, axis, 0, x.shape[axis] * step - (step - 1));
}

/** Elements start, start + step, ... before `end` along one axis; negative positions count from the end. */
export function slice(
  x: Tensor,
  axis: number,
  start: number,
  end = x.shape[axisOf(axis, x.rank, 'slice')],
  step = 1,
): Tensor {
  const a = axisOf(axis, x.rank, 'slice');
  const n = x.shape[a];
  const clip = (v: number) => Math.min(Math.max(v < 0 ? v + n : v, 0), n);
  if (step < 1) throw new RangeError(`slice: step ${step} must be at least 1 (use flip to reverse)`);
  const [from, to] = [clip(start), clip(end)];
  if (from === 0 && to === n && step === 1) return x;
  return apply(sliceOp, [x], { axis: a, start: from, end: to, step });
}

/** Reverses an axis. */
export function flip(x: Tensor, axis: number): Tensor {
  const a = axisOf(axis, x.rank, 'flip');
  return apply(sliceOp, [x], { axis: a, start: x.shape[a] - 1, end: -1, step: -1 });
}

type Pads = readonly (readonly [number, number])[];
const padOp: Op<{ pads: Pads; value: number }> = {
  name: 'pad',
  infer: ([x], { pads }) => ({ shape: x.shape.map((d, i) => d + pads[i][0] + pads[i][1]), dtype: x.dtype }),
  emit: (e, { inputs: [x] }, { pads, value }) =>
    e.node('Pad', [
      e.name(x),
      e.constant(int64([...pads.map((p) => p[0]), ...pads.map((p) => p[1])])),
      e.constant(ndarray([value], [], x.dtype)),
    ]),
  gradient: ({ inputs: [x], attrs: { pads } }) => [
    (g) => pads.reduce((y, [before], axis) => slice(y, axis, before, before + x.shape[axis]), g),
  ],
};
/** Surrounds a tensor with a constant: [before, after] for every axis, at least 0. */
export function pad(x: Tensor, pads: readonly (readonly number[])[], value = 0): Tensor {
  if (pads.length !== x.rank || pads.some(([a, b]) => a < 0 || b < 0))
    throw new RangeError(`pad: needs [before, after] >= 0 for each of ${x.rank} axes, got ${JSON.stringify(pads)}`);
  if (pads.every(([a, b]) => a === 0 && b === 0)) return x;
  return apply(padOp, [x], { pads: pads as Pads, value });
}

const concatOp: Op<{ axis: number }> = {
  name: 'concat',
  infer: (xs, { axis }) => {
    for (const x of xs)
      if (
        x.dtype !== xs[0].dtype ||
        x.rank !== xs[0].rank ||
        x.shape.some((d, i) => i !== axis && d !== xs[0].shape[i])
      )
        throw new RangeError(
          `concat: [${x.shape}] ${x.dtype} does not join [${xs[0].shape}] ${xs[0].dtype} along axis ${axis}`,
        );
    return {
      shape: xs[0].shape.map((d, i) => (i === axis ? xs.reduce((n, x) => n + x.shape[i], 0) : d)),
      dtype: xs[0].dtype,
    };
  },
  emit: (e, { inputs }, { axis }) =>
    e.node(
      'Concat',
      inputs.map((x) => e.name(x)),
      { axis: { i: axis } },
    ),
  gradient: ({ inputs, attrs: { axis } }) => {
    let at = 0;
    return inputs.map((x) => {
      const start = at;
      at += x.shape[axis];
      return (g) => slice(g, axis, start, start + x.shape[axis]);
    });
  },
};
export const concat = (xs: readonly Tensor[], axis = 0): Tensor =>
  xs.length === 1 ? xs[0] : apply(concatOp, xs, { axis: axisOf(axis, xs[0].rank, 'concat') });

export const unsqueeze = (x: Tensor, axis: number): Tensor => {
  const a = axisOf(axis, x.rank + 1, 'unsqueeze');
  return reshape(x, [...x.shape.slice(0, a), 1, ...x.shape.slice(a)]);
};
export function squeeze(x: Tensor, axis: number): Tensor {
  const a = axisOf(axis, x.rank, 'squeeze');
  if (x.shape[a] !== 1) throw new RangeError(`squeeze: axis ${axis} of [${x.shape}] has length ${x.shape[a]}, not 1`);
  return reshape(
    x,
    x.shape.filter((_, i) => i !== a),
  );
}
export const stack = (xs: readonly Tensor[], axis = 0): Tensor =>
  concat(
    xs.map((x) => unsqueeze(x, axis)),
    axis,
  );

const splitOp: Op<{ axis: number; lengths: readonly number[] }> = {
  name: 'split',
  infer: ([x], { axis, lengths }) => part(x, axis, lengths[0]),
  further: ({ inputs: [x] }, { axis, lengths }) => lengths.slice(1).map((length) => part(x, axis, length)),
  emit: (e, node, { axis, lengths }) =>
    e.node(
      'Split',
      [e.name(node.inputs[0]), e.constant(int64(lengths))],
      { axis: { i: axis } },
      { outputs: lengths.map(() => true) },
    ),
  gradient: ({ inputs: [x], attrs: { axis, lengths } }) => [
    (g, further) => {
      const zeros = (length: number) => expand(constant(0, x.dtype), part(x, axis, length).shape);
      return concat([g, ...lengths.slice(1).map((length, i) => further[i] ?? zeros(length))], axis);
    },
  ],
};
const part = (x: Tensor, axis: number, length: number) => ({
  shape: x.shape.map((d, i) => (i === axis ? length : d)),
  dtype: x.dtype,
});

/** Cuts an axis into equal parts (a count) or parts of the given lengths. */
export function split(x: Tensor, parts: number | readonly number[], axis = 0): Tensor[] {
  const a = axisOf(axis, x.rank, 'split');
  const lengths = typeof parts === 'number' ? range(parts).map(() => x.shape[a] / parts) : parts;
  if (lengths.reduce((n, d) => n + d, 0) !== x.shape[a] || lengths.some((d) => !Number.isInteger(d)))
    throw new RangeError(`split: axis ${axis} of [${x.shape}] does not split into ${JSON.stringify(parts)}`);
  if (lengths.length === 1) return [x];
  const first = apply(splitOp, [x], { axis: a, lengths });
  return [first, ...range(lengths.length - 1, 1).map((i) => furtherOutput(first, i))];
}
