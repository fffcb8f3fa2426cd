import type { NdArray } from '../array/index.js';
import { scalarValue } from './ops/leaves.js';
import { range, sameShape } from './shape.js';
import type { Tensor } from './tensor.js';
import { Variable } from './variable.js';
import { type Loop, type LoopCode, type Operand, wasmLoop } from './wasm.js';

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

/** Splits the updates into fused host loops and the rest, which the graph has to compute. */
export function hostLoops(updates: ReadonlyMap<Variable, Tensor>): { loops: HostLoop[]; rest: Map<Variable, Tensor> } {
  const eligible = new Map([...updates].filter(([v, next]) => v.dtype === 'float32' && fuses(next, v)));
  const rest = new Map([...updates].filter(([v]) => !eligible.has(v)));
  const groups = grouped(eligible);
  return { loops: groups.map((group) => hostLoop(group, eligible)), rest };
}

/** A loop over the variable's elements can compute it: its operands are of that shape or single numbers. */
const fuses = (x: Tensor, v: Variable): boolean =>
  x.op.expression !== undefined &&
  sameShape(x.shape, v.shape) &&
  x.inputs.every((input) => sameShape(input.shape, v.shape) || input.size === 1);

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
  const steps: LoopCode['steps'][number][] = [];
  const operands = new Map<Tensor, Operand>();
  const indexIn = <T>(list: T[], item: T): number => (list.includes(item) ? list.indexOf(item) : list.push(item) - 1);

  const operand = (x: Tensor, v: Variable): Operand => {
    const known = operands.get(x);
    if (known) return known;
    const literal = scalarValue(x);
    if (literal !== undefined) return { literal };
    let result: Operand;
    if (x instanceof Variable && sameShape(x.shape, v.shape) && x.dtype === 'float32')
      result = { variable: indexIn(variables, x) };
    else if (fuses(x, v)) {
      const from = x.inputs.map((input) => operand(input, v));
      result = { step: steps.push({ op: x.op, operands: from }) - 1 };
    } else if (x.op.name === 'expand' && x.inputs[0].size === 1) result = operand(x.inputs[0], v);
    else if (x.size === 1 && v.size !== 1) result = { scalar: indexIn(scalars, x) };
    else result = { array: indexIn(arrays, x) };
    operands.set(x, result);
    return result;
  };
  const results = targets.map((v) => operand(updates.get(v)!, v));
  const loop = loopOf({ variables: variables.length, arrays: arrays.length, scalars: scalars.length, steps, results });
  return { arrays, scalars, variables, run: runner(loop, variables, targets) };
}

/** A function of its own, which does not keep the graph alive. */
function runner(loop: Loop, variables: readonly Variable[], targets: readonly Variable[]): HostLoop['run'] {
  return (values, numbers) => {
    const state = variables.map((v) => v.value);
    loop(
      [...state, ...values].map((array) => array.data as Float32Array),
      numbers,
    );
    for (const v of targets) v.changed();
  };
}

const loops = new Map<string, Loop>();
function loopOf(code: LoopCode): Loop {
  const key = JSON.stringify(code, (name, value) => (name === 'op' ? value.name : value));
  const loop = loops.get(key) ?? wasmLoop(code) ?? scriptLoop(code);
  loops.set(key, loop);
  return loop;
}

/** The loop as JavaScript, for primitives that WebAssembly has no instruction for. */
function scriptLoop({ variables, arrays, scalars, steps, results }: LoopCode): Loop {
  const text = (x: Operand): string => {
    if ('variable' in x) return `v${x.variable}[i]`;
    if ('array' in x) return `a${x.array}[i]`;
    if ('scalar' in x) return `s${x.scalar}`;
    return 'step' in x ? `x${x.step}` : `(${x.literal})`;
  };
  const source = [
    ...range(variables).map((k) => `const v${k} = values[${k}];`),
    ...range(arrays).map((k) => `const a${k} = values[${variables + k}];`),
    ...range(scalars).map((k) => `const s${k} = scalars[${k}];`),
    `for (let i = 0; i < v0.length; i++) {`,
    ...steps.map(({ op, operands }, k) => `const x${k} = ${op.expression!(...operands.map(text))};`),
    ...results.map((x, k) => `const r${k} = ${text(x)};`),
    ...results.map((_, k) => `v${k}[i] = r${k};`),
    `}`,
  ].join('\n');
  return new Function('values', 'scalars', source) as Loop;
}
