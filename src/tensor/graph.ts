import { bytesPerElement, type NdArray, ndarray, type Shape, StoredArray, sizeOf } from '../array/index.js';
import {
  type Attributes,
  dataTypes,
  type OnnxGraph,
  type OnnxInitializer,
  type OnnxNode,
  type OnnxValue,
} from '../runtime/index.js';
import { type Emitter, isFurtherOutput } from './op.js';
import type { Tensor } from './tensor.js';

/**
 * Every node the given ones depend on, themselves included, in order of construction (inputs before users).
 * @param until nodes not to look behind.
 */
export function reachable(roots: Iterable<Tensor>, until: Pick<ReadonlySet<Tensor>, 'has'> = new Set()): Tensor[] {
  const seen = new Set<Tensor>(roots);
  // A Set visits what is added while it is walked.
  for (const x of seen) if (!until.has(x)) for (const input of x.inputs) seen.add(input);
  return [...seen].sort((a, b) => a.id - b.id);
}

export interface EmitRequest {
  /** What is fed at each call, with the name it is fed under. */
  readonly inputs: ReadonlyMap<Tensor, string>;
  /** Leaves whose values become weights of the graph. */
  readonly weights: ReadonlyMap<Tensor, NdArray>;
  readonly outputs: readonly Tensor[];
}

/** Arrays above this many bytes are handed over beside the model instead of inside it, but for integers: sizes must be read with the graph. */
const EXTERNAL_BYTES = 1024;

/**
 * Writes the part of the graph that the outputs need, in order of construction: forward in the order of the
 * program, then backward with each weight's gradient next to its layer's, so that activations die early.
 */
export function emitGraph({ inputs, weights, outputs }: EmitRequest): { graph: OnnxGraph; outputNames: string[] } {
  const used = new Set<string>();
  const names = new Map<Tensor, readonly string[]>();
  let nodes: OnnxNode[] = [];
  const initializers: OnnxInitializer[] = [];
  const constants = new Map<string, string>();
  const weight = (array: NdArray): string => {
    const name = `w${initializers.length}`;
    const external = array.dtype !== 'int64' && sizeOf(array.shape) * bytesPerElement(array.dtype) > EXTERNAL_BYTES;
    const stored = array instanceof StoredArray && external ? array.stored : undefined;
    initializers.push({ name, array, external, ...(stored && { stored }) });
    if (!stored || stored.dtype === array.dtype) return name;
    return emitter.node('Cast', [name], { to: { i: dataTypes[array.dtype] } })[0];
  };

  let count = 0;
  const emitter: Emitter = {
    name: (x) => {
      const known = isFurtherOutput(x) ? names.get(x.inputs[0])?.[x.attrs.index as number] : names.get(x)?.[0];
      if (!known) throw new Error(`compile: ${x.op.name} [${x.shape}] is used before it is computed`);
      return known;
    },
    uses: (node, output) => used.has(`${node.id} ${output}`),
    node(type, from, attributes: Attributes = {}, { domain = '', outputs: wanted = [true] } = {}) {
      const results = wanted.map((want) => (want ? `t${count++}` : ''));
      const last = results.findLastIndex((name) => name !== '');
      nodes.push({ type, domain, inputs: from, outputs: results.slice(0, last + 1), attributes });
      return results;
    },
    constant(array) {
      if (array.data.length > 64) return weight(array);
      const key = `${array.dtype} ${array.shape} ${array.data}`;
      const known = constants.get(key);
      if (known) return known;
      const name = weight(array);
      constants.set(key, name);
      return name;
    },
    fresh: () => `t${count++}`,
    subgraph(values, build) {
      const outer = nodes;
      nodes = [];
      const results = build();
      const body = nodes;
      nodes = outer;
      return { inputs: values, outputs: results, initializers: [], nodes: runAsWritten(body) };
    },
    define: (x, name) => names.set(x, [name]),
    compute(tensors, visit = (_, emit) => emit()) {
      const order = reachable(tensors);
      for (const x of order) if (isFurtherOutput(x)) used.add(`${x.inputs[0].id} ${x.attrs.index}`);
      for (const x of order) if (!names.has(x)) visit(x, () => emit(x));
    },
  };

  const fed: OnnxValue[] = [];
  const emit = (x: Tensor): void => {
    const name = inputs.get(x);
    // A weight in another shape is the same array: as a node, it would be folded into a copy.
    const array = weights.get(x) ?? (x.op.name === 'reshape' ? inShape(weights.get(x.inputs[0]), x.shape) : undefined);
    if (name !== undefined) {
      fed.push({ name, dtype: x.dtype, shape: x.shape });
      names.set(x, [name]);
    } else if (array) names.set(x, [weight(array)]);
    else if (x.op.name === 'input' || x.op.name === 'variable')
      throw new Error(`compile: a tensor [${x.shape}] from another function's inputs is used`);
    else if (!isFurtherOutput(x)) names.set(x, x.op.emit(emitter, x, x.attrs));
  };
  emitter.compute(outputs);

  // Every output is a value of its own: one that is asked for twice (a state that is also a result) is copied.
  const free = new Set(nodes.flatMap((node) => node.outputs));
  const outputNames = outputs.map((x) => {
    const name = emitter.name(x);
    return free.delete(name) ? name : emitter.node('Identity', [name])[0];
  });
  const values = outputs.map((x, i) => ({ name: outputNames[i], dtype: x.dtype, shape: x.shape }));
  const read = new Set(nodes.flatMap(readBy));
  const needed = initializers.filter((initializer) => read.has(initializer.name));
  return { graph: { inputs: fed, outputs: values, initializers: needed, nodes: runAsWritten(nodes) }, outputNames };
}

const inShape = (array: NdArray | undefined, shape: Shape): NdArray | undefined =>
  array instanceof StoredArray ? array.reshaped(shape) : array && ndarray(array.data, shape, array.dtype);

/**
 * The nodes in another order of the file, in which onnxruntime runs them as they are written here, though its
 * unoptimised walk begins at nodes that nobody reads, the last in the file first, and goes back depth first, again to
 * the last in the file first. What is written early must stand late; the file stays sorted, as subgraphs must be.
 */
export function runAsWritten(nodes: readonly OnnxNode[]): OnnxNode[] {
  const makers = new Map(nodes.flatMap((node, i) => node.outputs.map((name) => [name, i] as const)));
  const sources = nodes.map((node) => readBy(node).flatMap((name) => (name ? (makers.get(name) ?? []) : [])));
  const read = new Set(sources.flat());
  const placed = new Set<number>();
  const stack = [...nodes.keys()].filter((i) => !read.has(i));
  while (stack.length > 0) {
    const waiting = sources[stack[stack.length - 1]].filter((i) => !placed.has(i));
    if (waiting.length > 0) stack.push(waiting.reduce((a, b) => Math.max(a, b)));
    else placed.add(stack.pop()!);
  }
  return [...placed].map((i) => nodes[i]);
}

/** What a node reads, the bodies of loops included. */
const readBy = ({ inputs, attributes }: OnnxNode): string[] => [
  ...inputs,
  ...Object.values(attributes).flatMap((a) =>
    'g' in a ? [...a.g.nodes.flatMap(readBy), ...a.g.outputs.map(({ name }) => name)] : [],
  ),
];
