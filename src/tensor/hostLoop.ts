import type { NdArray } from '../array/index.js';
import { scalarValue } from './ops/leaves.js';
import { sameShape } from './shape.js';
import type { Tensor } from './tensor.js';
import { Variable } from './variable.js';

/**
 * Elementwise updates of variables (an optimiser's step, an average of the weights) as one fused loop on the host.
 * onnxruntime would walk the memory once per operation and needs a second buffer per variable;
 * this walks it once, in place. The symbolic expression stays the single source.
 */
export interface HostLoop {
  /** Tensors of the variables' shape that the graph must deliver (gradients). */
  readonly arrays: readonly Tensor[];
  /** Scalars the graph must deliver (learning rate, bias corrections). */
  readonly scalars: readonly Tensor[];
  /** Those it reads or updates, whose values must be in host memory. */
  readonly variables: readonly Variable[];
  run(arrays: readonly NdArray[], scalars: readonly number[]): void;
}

type Loop = (
  n: number,
  state: readonly Float32Array[],
  arrays: readonly Float32Array[],
  scalars: readonly number[],
) => void;
const loops = new Map<string, Loop>();

/** Splits the updates into fused host loops and the rest, which the graph has to compute. */
export function hostLoops(updates: ReadonlyMap<Variable, Tensor>): { loops: HostLoop[]; rest: Map<Variable, Tensor> } {
  const eligible = new Map([...updates].filter(([v, next]) => v.dtype === 'float32' && fuses(next, v)));
  const rest = new Map([...updates].filter(([v]) => !eligible.has(v)));
  const groups = grouped(eligible);
  return { loops: groups.map((group) => hostLoop(group, eligible)), rest };
}

const fuses = (x: Tensor, v: Variable): boolean => x.op.expression !== undefined && sameShape(x.shape, v.shape);

/** Variables that read each other must be updated in one loop, which reads everything before it writes. */
function grouped(updates: ReadonlyMap<Variable, Tensor>): Variable[][] {
  const groups = new Map<Variable, Set<Variable>>([...updates.keys()].map((v) => [v, new Set([v])]));
  for (const [v, next] of updates) {
    const seen = new Set<Tensor>([next]);
    for (const x of seen) {
      if (x instanceof Variable && sameShape(x.shape, v.shape)) {
        const [into, other] = [groups.get(v)!, groups.get(x)];
        if (other && other !== into)
          for (const member of other) {
            into.add(member);
            groups.set(member, into);
          }
      } else if (fuses(x, v)) for (const input of x.inputs) seen.add(input);
    }
  }
  return [...new Set(groups.values())].map((group) => [...group]);
}

function hostLoop(targets: readonly Variable[], updates: ReadonlyMap<Variable, Tensor>): HostLoop {
  const variables: Variable[] = [...targets];
  const arrays: Tensor[] = [];
  const scalars: Tensor[] = [];
  const lines: string[] = [];
  const names = new Map<Tensor, string>();
  const indexIn = <T>(list: T[], item: T): number => (list.includes(item) ? list.indexOf(item) : list.push(item) - 1);

  const visit = (x: Tensor, v: Variable): string => {
    const known = names.get(x);
    if (known) return known;
    const literal = scalarValue(x);
    if (literal !== undefined) return `(${literal})`;
    let name: string;
    if (x instanceof Variable && sameShape(x.shape, v.shape) && x.dtype === 'float32')
      name = `v${indexIn(variables, x)}[i]`;
    else if (fuses(x, v)) {
      const operands = x.inputs.map((input) => visit(input, v));
      name = `x${names.size}`;
      lines.push(`const ${name} = ${x.op.expression!(...operands)};`);
    } else if (x.op.name === 'expand' && x.inputs[0].size === 1) name = visit(x.inputs[0], v);
    else if (x.size === 1 && v.size !== 1) name = `s${indexIn(scalars, x)}`;
    else name = `a${indexIn(arrays, x)}[i]`;
    names.set(x, name);
    return name;
  };
  const stores = targets.map((v, i) => `v${i}[i] = ${visit(updates.get(v)!, v)};`);

  const source = [
    ...variables.map((_, i) => `const v${i} = state[${i}];`),
    ...arrays.map((_, i) => `const a${i} = arrays[${i}];`),
    ...scalars.map((_, i) => `const s${i} = scalars[${i}];`),
    `for (let i = 0; i < n; i++) {`,
    ...lines,
    ...stores,
    `}`,
  ].join('\n');
  let loop = loops.get(source);
  if (!loop) {
    loop = new Function('n', 'state', 'arrays', 'scalars', source) as Loop;
    loops.set(source, loop);
  }
  const run: HostLoop['run'] = (values, numbers) => {
    const data = (list: readonly NdArray[]) => list.map((array) => array.data as Float32Array);
    loop(targets[0].size, data(variables.map((v) => v.value)), data(values), numbers);
    for (const v of targets) v.changed();
  };
  return { arrays, scalars, variables, run };
}
