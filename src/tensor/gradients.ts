import { reachable } from './graph.js';
import { apply, asCopy, furtherOutput, inSection, isFurtherOutput, type NodeView } from './op.js';
import { constant, zerosLike } from './ops/leaves.js';
import { isFloat } from './shape.js';
import type { Tensor } from './tensor.js';

/**
 * Reverse-mode differentiation of a scalar: d loss / d x for every x in `wrt`, as new graph nodes,
 * which can be differentiated again. An x the loss does not depend on gets zeros.
 * @throws RangeError when the loss is not a scalar, TypeError when a node on the way has no gradient.
 */
export function gradients(loss: Tensor, wrt: readonly Tensor[], seed: Tensor = constant(1)): Tensor[] {
  if (loss.size !== 1) throw new RangeError(`gradients: the loss must be a scalar, got [${loss.shape}]`);
  const active = dependents(loss, wrt);
  const revive = reviver();
  const pending = new Map<Tensor, Tensor>([[loss, seed.reshape(loss.shape)]]);
  const accumulate = (x: Tensor, g: Tensor) => pending.set(x, pending.has(x) ? pending.get(x)!.add(g) : g);
  const targets = new Set(wrt);
  const further = new Map<Tensor, (Tensor | undefined)[]>();

  for (const node of [...active].sort((a, b) => b.id - a.id)) {
    const g = pending.get(node);
    if (isFurtherOutput(node)) {
      if (!g) continue;
      // Its gradient waits for the node it is an output of, which comes later in this order.
      const source = node.inputs[0];
      const slots = further.get(source) ?? [];
      slots[(node.attrs.index as number) - 1] = g;
      further.set(source, slots);
      continue;
    }
    const slots = further.get(node) ?? [];
    if ((!g && slots.length === 0) || node.inputs.length === 0) continue;
    if (!targets.has(node)) pending.delete(node);
    if (!node.op.gradient) throw new TypeError(`gradients: ${node.op.name} has no gradient`);
    const view: NodeView = { inputs: node.inputs.map(revive), output: revive(node), attrs: node.attrs };
    for (const [i, rule] of node.op.gradient(view).entries()) {
      const x = node.inputs[i];
      if (rule && active.has(x)) accumulate(x, rule(g ?? zerosLike(node), slots));
    }
  }
  return wrt.map((x) => pending.get(x) ?? zerosLike(x));
}

/** The nodes between the targets and the loss, oldest first. */
function dependents(loss: Tensor, wrt: readonly Tensor[]): Set<Tensor> {
  const targets = new Set(wrt);
  const active = new Set<Tensor>();
  for (const x of reachable([loss])) {
    const flows = isFloat(x.dtype) && x.op.name !== 'stopGradient' && x.inputs.some((input) => active.has(input));
    if (flows || targets.has(x)) active.add(x);
  }
  return active;
}

/** Builds tagged nodes anew (once per gradient), so that the forward pass need not keep them. */
function reviver(): (x: Tensor) => Tensor {
  const copies = new Map<Tensor, Tensor>();
  const tag = `again ${++passes}`;
  const revive = (x: Tensor): Tensor => {
    if (!x.section) return x;
    let again = copies.get(x);
    if (!again) {
      const inputs = x.inputs.map(revive);
      again = asCopy(tag, () =>
        isFurtherOutput(x) ? furtherOutput(inputs[0], x.attrs.index as number) : apply(x.op, inputs, x.attrs),
      );
      copies.set(x, again);
    }
    return again;
  };
  return revive;
}
let passes = 0;

/**
 * Gradient checkpointing (Chen et al. 2016): what `build` makes inside is computed again in the backward pass
 * instead of being kept in memory. Its results are kept, unless `discardResults`, which suits cheap activations.
 */
export function checkpoint<T extends Tensor | readonly Tensor[]>(build: () => T, { discardResults = false } = {}): T {
  const tag = Symbol('checkpoint');
  const result = inSection(tag, build);
  if (discardResults) return result;
  // An untagged twin of the last node: its value is kept, its inputs are not.
  const keep = (x: Tensor): Tensor =>
    x.section === tag ? asCopy(`kept ${x.id}`, () => apply(x.op, x.inputs, x.attrs)) : x;
  return (Array.isArray(result) ? result.map(keep) : keep(result as Tensor)) as T;
}
