import type { Shape } from '../../array/index.js';
import { reachable } from '../graph.js';
import { apply, type Op } from '../op.js';
import { type Rule, type Rules, rewrite } from '../rewrite.js';
import { sameShape } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { isBlockedConv, withSum } from './blocked.js';

/** The outputs with what is added to a blocked convolution's result, and nothing else reads, added by the convolution. */
export function sumsInConvolutions(outputs: readonly Tensor[]): Tensor[] {
  const readers = readersOf(outputs);
  const rules: Rules = {
    add(inputs, _, { inputs: originals, shape }) {
      const i = originals.findIndex((x) => isBlockedConv(x) && readers.get(x) === 1);
      if (i < 0 || !originals.every((x) => sameShape(x.shape, shape))) return undefined;
      return withSum(inputs[i], inputs[1 - i]);
    },
  };
  return rewrite(outputs, rules);
}

/** The outputs with x + y g and x - y g, where g has one number for each row, in one pass each. */
export function gatedSums(outputs: readonly Tensor[]): Tensor[] {
  const readers = readersOf(outputs);
  /** Which operand is one number for each row, in a product that nothing else reads; -1 for none. */
  const gateOf = ({ op, inputs, dtype }: Tensor, shape: Shape): number => {
    if (op.name !== 'mul' || dtype !== 'float32' || shape.at(-1) === 1) return -1;
    const ofRows = [...shape.slice(0, -1), 1];
    return inputs.findIndex((x, i) => sameShape(x.shape, ofRows) && sameShape(inputs[1 - i].shape, shape));
  };
  const gated =
    (places: readonly number[], gateBy: (gate: Tensor) => Tensor): Rule =>
    (inputs, _, { inputs: originals, shape }) => {
      const i = places.find((i) => readers.get(originals[i]) === 1 && gateOf(originals[i], shape) >= 0);
      if (i === undefined || !sameShape(originals[1 - i].shape, shape)) return undefined;
      const [factors, gate] = [inputs[i].inputs, gateOf(originals[i], shape)];
      return apply(gatedAddOp, [inputs[1 - i], factors[1 - gate], gateBy(factors[gate])], {});
    };
  return rewrite(outputs, { add: gated([1, 0], (gate) => gate), sub: gated([1], (gate) => gate.neg()) });
}
const gatedAddOp: Op<Record<string, never>> = {
  name: 'gatedAdd',
  infer: ([x]) => x,
  emit: (e, { inputs }) => {
    const names = inputs.map((x) => e.name(x));
    return e.node('GatedAdd', names, {}, { domain: 'com.microsoft' });
  },
};

/** How many read each tensor, in the bodies of loops as well. */
function readersOf(outputs: readonly Tensor[]): ReadonlyMap<Tensor, number> {
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
  return readers;
}
