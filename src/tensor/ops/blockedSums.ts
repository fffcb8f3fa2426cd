import { reachable } from '../graph.js';
import { type Rules, rewrite } from '../rewrite.js';
import { sameShape } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { isBlockedConv, withSum } from './blocked.js';

/** The outputs with what is added to a blocked convolution's result, and nothing else reads, added by the convolution. */
export function sumsInConvolutions(outputs: readonly Tensor[]): Tensor[] {
  const readers = new Map<Tensor, number>();
  const read = (x: Tensor) => readers.set(x, (readers.get(x) ?? 0) + 1);
  const count = (tensors: readonly Tensor[]): void => {
    for (const x of tensors) read(x);
    for (const node of reachable(tensors)) {
      for (const x of node.inputs) read(x);
      if (node.op.name === 'sumOverParts') count(node.attrs.outputs as readonly Tensor[]);
    }
  };
  count(outputs);
  const rules: Rules = {
    add(inputs, _, { inputs: originals, shape }) {
      const i = originals.findIndex((x) => isBlockedConv(x) && readers.get(x) === 1);
      if (i < 0 || !originals.every((x) => sameShape(x.shape, shape))) return undefined;
      return withSum(inputs[i], inputs[1 - i]);
    },
  };
  return rewrite(outputs, rules);
}
