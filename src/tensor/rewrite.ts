import { reachable } from './graph.js';
import { apply, asCopy, furtherOutput, isFurtherOutput } from './op.js';
import { matmul, matrixTranspose } from './ops/linear.js';
import { type LoopAttrs, loopInputs } from './ops/loop.js';
import type { Tensor } from './tensor.js';

/** A primitive in terms of others, from its rewritten inputs; undefined leaves the node as it is. */
export type Rule = (
  inputs: readonly Tensor[],
  attrs: Readonly<Record<string, unknown>>,
  original: Tensor,
) => Tensor | undefined;
/** By the primitive's name; `elementwise` for those primitives that have no rule of their own. */
export type Rules = Readonly<Record<string, Rule>>;

/**
 * The same outputs with some primitives replaced, what they are replaced with included. Nothing else changes; copies
 * made on purpose stay copies.
 */
export function rewrite(outputs: readonly Tensor[], rules: Rules): Tensor[] {
  const copies = new Map<Tensor, Tensor>();
  const all = (tensors: readonly Tensor[]): Tensor[] => {
    for (const x of reachable(tensors, copies)) {
      if (copies.has(x)) continue;
      const copy = x.inputs.length > 0 ? rewritten(x) : x;
      copies.set(x, copy).set(copy, copy);
    }
    return tensors.map((x) => copies.get(x)!);
  };
  const rewritten = (x: Tensor): Tensor => {
    const body = x.attrs.outputs as readonly Tensor[] | undefined; // of a loop, which reads from outside itself
    const attrs = body ? { ...x.attrs, outputs: all(body) } : x.attrs;
    const from = x.inputs.map((input) => copies.get(input)!);
    const inputs = body ? loopInputs(from, attrs as LoopAttrs) : from;
    return asCopy(`rewritten ${x.id}`, () => {
      const rule = rules[x.op.name] ?? (x.op.elementwise ? rules.elementwise : undefined);
      const replacement = rule?.(inputs, attrs, x);
      if (replacement) return all([replacement])[0];
      if (inputs.every((input, i) => input === x.inputs[i]) && !body) return x;
      return isFurtherOutput(x) ? furtherOutput(inputs[0], x.attrs.index as number) : apply(x.op, inputs, attrs);
    });
  };
  return all(outputs);
}

/** Batches of products that transpose or scale (FusedMatMul) as plain ones; two matrices are a standard Gemm already. */
export const plainMatmul: Rule = ([a, b], { transA, transB, alpha }) => {
  if ((a.rank === 2 && b.rank === 2) || (!transA && !transB && alpha === 1)) return undefined;
  const factor = alpha as number;
  const [left, right] = [transA ? matrixTranspose(a) : a, transB ? matrixTranspose(b) : b];
  return a.size <= b.size ? matmul(left.mul(factor), right) : matmul(left, right.mul(factor));
};
