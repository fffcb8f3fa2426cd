import { ndarray } from '../../array/index.js';
import type { OnnxValue } from '../../runtime/index.js';
import { reachable } from '../graph.js';
import { apply, type Emitter, furtherOutput, isFurtherOutput, type Op } from '../op.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { input } from './leaves.js';
import { isDraw } from './random.js';

export type LoopAttrs = {
  parts: number;
  /** What the body reads in place of the batch inputs: one part of each. */
  placeholders: readonly Tensor[];
  outputs: readonly Tensor[];
};

const loopOp: Op<LoopAttrs> = {
  name: 'sumOverParts',
  infer: (_, { outputs: [first] }) => first,
  further: (_, { outputs }) => outputs.slice(1),
  // A Loop whose carried values are the running sums; the body reads everything else from outside.
  emit(e, { inputs }, { parts, placeholders, outputs }) {
    const iteration: OnnxValue = { name: e.fresh(), dtype: 'int64', shape: [] };
    const goOn: OnnxValue = { name: e.fresh(), dtype: 'bool', shape: [] };
    const summands = summandsOf(outputs, placeholders);
    const sums = summands.map(({ dtype, shape }): OnnxValue => ({ name: e.fresh(), dtype, shape }));
    const fused = productsOnlyForSums(summands);
    const body = e.subgraph([iteration, goOn, ...sums], () => {
      for (const [i, part] of placeholders.entries())
        e.define(part, slicePart(e, e.name(inputs[i]), part.shape[0], iteration.name));
      const next: string[] = [];
      const add = (x: Tensor) => {
        for (const [i, summand] of summands.entries())
          if (summand === x) next[i] = addTo(e, sums[i].name, x, fused.has(x));
      };
      // Each sum is taken where its summand is made, so that what made it can go.
      e.compute(summands, (x, emit) => {
        if (!fused.has(x)) emit();
        add(x);
      });
      for (const x of summands) if (next[summands.indexOf(x)] === undefined) add(x);
      const [stillOn] = e.node('Identity', [goOn.name]);
      return [{ ...goOn, name: stillOn }, ...sums.map((sum, i) => ({ ...sum, name: next[i] }))];
    });
    const zeros = summands.map(
      ({ dtype, shape }) =>
        e.node('Expand', [e.constant(ndarray([0], [], dtype)), e.constant(ndarray(shape, [shape.length], 'int64'))])[0],
    );
    const trips = e.constant(ndarray([parts], [], 'int64'));
    const totals = e.node('Loop', [trips, '', ...zeros], { body: { g: body } }, { outputs: sums.map(() => true) });
    return outputs.map((output, i) => {
      if (output === summands[i]) return totals[i];
      e.define(summands[i], totals[i]);
      e.compute([output]);
      return e.name(output);
    });
  },
};

/** What only moves elements about waits until they are summed, unless something in the body reads it. */
function summandsOf(outputs: readonly Tensor[], placeholders: readonly Tensor[]): readonly Tensor[] {
  const readers = new Map<Tensor, number>();
  for (const x of reachable(outputs).flatMap((x) => x.inputs)) readers.set(x, (readers.get(x) ?? 0) + 1);
  const outside = outsideOf(placeholders, outputs);
  return outputs.map((output) => {
    let x = output;
    let count = 0;
    while (moves.has(x.op.name) && (readers.get(x) ?? 0) === count && !outside.has(x.inputs[0])) {
      if (isFurtherOutput(x.inputs[0]) || outputs.includes(x.inputs[0])) break;
      x = x.inputs[0];
      count = 1;
    }
    return x;
  });
}
const moves: ReadonlySet<string> = new Set(['reshape', 'transpose', 'unblocked', 'unblockedRows']);

function slicePart(e: Emitter, whole: string, size: number, iteration: string): string {
  const one = e.constant(ndarray([size], [1], 'int64'));
  const [start] = e.node('Mul', [iteration, one]);
  const [end] = e.node('Add', [start, one]);
  return e.node('Slice', [whole, start, end, e.constant(ndarray([0], [1], 'int64'))])[0];
}

/** Matrix products that nothing else reads: they add to their sum in passing. */
function productsOnlyForSums(outputs: readonly Tensor[]): ReadonlySet<Tensor> {
  const read = new Set(reachable(outputs).flatMap((x) => x.inputs));
  return new Set(outputs.filter((x) => x.op.name === 'matmul' && x.rank === 2 && !read.has(x)));
}

function addTo(e: Emitter, sum: string, x: Tensor, fuse: boolean): string {
  if (!fuse) return e.node('Add', [sum, e.name(x)])[0];
  const { transA, transB, alpha } = x.attrs as { transA: boolean; transB: boolean; alpha: number };
  const attributes = { transA: { i: Number(transA) }, transB: { i: Number(transB) }, alpha: { f: alpha } };
  return e.node('Gemm', [...x.inputs.map((y) => e.name(y)), sum], attributes)[0];
}

/**
 * Cuts the batch inputs (all of one length along axis 0) into equal parts, applies `f` to one part after another and
 * adds up its results: gradient accumulation inside the graph, with one part's activations alive at a time.
 * What `f` computes from other tensors alone is computed once. Not differentiable.
 * @throws RangeError when the parts do not divide the batch.
 */
export function sumOverParts(
  parts: number,
  batch: readonly Tensor[],
  f: (part: readonly Tensor[]) => readonly Tensor[],
): readonly Tensor[] {
  if (parts === 1) return f(batch);
  const placeholders = batch.map((x) => {
    if (x.shape[0] % parts) throw new RangeError(`sumOverParts: ${parts} parts do not divide a batch of ${x.shape[0]}`);
    return input([x.shape[0] / parts, ...x.shape.slice(1)], x.dtype);
  });
  const outputs = f(placeholders);
  // Parts need draws of their own (dropout masks), which only the whole batch gives them.
  if (reachable(outputs).some(isDraw)) return f(batch);
  const attrs = { parts, placeholders, outputs };
  const first = apply(loopOp, loopInputs(batch, attrs), attrs);
  return [first, ...range(outputs.length - 1, 1).map((i) => furtherOutput(first, i))];
}

/** The batch inputs, which come first, and what else the body reads. */
export const loopInputs = (batch: readonly Tensor[], { placeholders, outputs }: LoopAttrs): readonly Tensor[] => [
  ...batch.slice(0, placeholders.length),
  ...outsideOf(placeholders, outputs),
];

/** What the body reads that does not depend on the part. */
function outsideOf(placeholders: readonly Tensor[], outputs: readonly Tensor[]): ReadonlySet<Tensor> {
  const inside = new Set<Tensor>(placeholders);
  const outside = new Set<Tensor>();
  for (const x of reachable(outputs)) if (x.inputs.some((y) => inside.has(y))) inside.add(x);
  for (const x of inside) for (const y of x.inputs) if (!inside.has(y)) outside.add(y);
  for (const x of outputs) if (!inside.has(x)) outside.add(x);
  return outside;
}
