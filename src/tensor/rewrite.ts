import { reachable } from './graph.js';
import { apply, asCopy, furtherOutput, isFurtherOutput } from './op.js';
import type { Tensor } from './tensor.js';

/** A primitive in terms of others; undefined leaves the node as it is. */
export type Rule = (inputs: readonly Tensor[], attrs: Readonly<Record<string, unknown>>) => Tensor | undefined;
/** By the primitive's name. */
export type Rules = Readonly<Record<string, Rule>>;

/** The same outputs with some primitives replaced; nothing else changes, copies made on purpose stay copies. */
export function rewrite(outputs: readonly Tensor[], rules: Rules): Tensor[] {
  const copies = new Map<Tensor, Tensor>();
  const rewritten = (x: Tensor): Tensor => {
    const inputs = x.inputs.map((input) => copies.get(input)!);
    const body = x.attrs.outputs as readonly Tensor[] | undefined; // of a loop, which reads from outside itself
    const attrs = body ? { ...x.attrs, outputs: all(body) } : x.attrs;
    const replacement = rules[x.op.name]?.(inputs, attrs);
    if (replacement) return replacement;
    if (inputs.every((input, i) => input === x.inputs[i]) && !body) return x;
    return isFurtherOutput(x) ? furtherOutput(inputs[0], x.attrs.index as number) : apply(x.op, inputs, attrs);
  };
  const all = (tensors: readonly Tensor[]): Tensor[] => {
    for (const x of reachable(tensors))
      if (!copies.has(x)) copies.set(x, x.inputs.length ? asCopy(`rewritten ${x.id}`, () => rewritten(x)) : x);
    return tensors.map((x) => copies.get(x)!);
  };
  return all(outputs);
}
