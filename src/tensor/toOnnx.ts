import type { DType, NdArray } from '../array/index.js';
import { encodeModel, type OnnxGraph, type OnnxInitializer, type OnnxNode } from '../runtime/index.js';
import { emitGraph, reachable } from './graph.js';
import { asCopy } from './op.js';
import { type WeightGradientAttrs, weightGradientByTaps } from './ops/conv.js';
import { input } from './ops/leaves.js';
import { plainMatmul, type Rules, rewrite } from './rewrite.js';
import type { Tensor } from './tensor.js';
import { Variable } from './variable.js';

export interface OnnxInput {
  /** 'batch' stands for any number, the same wherever it is written. */
  readonly shape: readonly (number | 'batch')[];
  readonly dtype: DType;
}

type Named<T> = Readonly<Record<string, T>>;

/**
 * Writes a function of tensors as an ONNX file, its variables' present values inside. It uses standard operators only
 * (opset 20), so that any runtime reads it.
 * @param fn from tensors by name to tensors by name; it must not assign variables or draw random numbers.
 * @param weights names for the variables, such as a module's `namedVariables()`.
 * @throws Error when something other than a reshape depends on the batch: then give its size as a number.
 */
export function toOnnx(
  fn: (inputs: Named<Tensor>) => Named<Tensor>,
  inputs: Named<OnnxInput>,
  weights: ReadonlyMap<string, Variable> = new Map(),
): Uint8Array {
  const labels = new Map([...weights].map(([name, v]) => [v, name]));
  const graph = trace(fn, inputs, labels, batchSizes[0]);
  const fixed = Object.values(inputs).every(({ shape }) => !shape.includes('batch'));
  return encodeModel(fixed ? graph : withAnyBatch(graph, trace(fn, inputs, labels, batchSizes[1])));
}

/** Two sizes that nothing else in a graph has: what differs between their graphs depends on the batch. */
const batchSizes = [1009, 1013] as const;

function trace(
  fn: (inputs: Named<Tensor>) => Named<Tensor>,
  inputs: Named<OnnxInput>,
  labels: ReadonlyMap<Variable, string>,
  batch: number,
): OnnxGraph {
  const symbols = Object.entries(inputs).map(([name, { shape, dtype }]) => {
    const sizes = shape.map((d) => (d === 'batch' ? batch : d));
    return [name, input(sizes, dtype)] as const;
  });
  // No nodes in common with another trace, so that both have theirs in the same order.
  const results = asCopy(`onnx ${batch}`, () => Object.entries(fn(Object.fromEntries(symbols))));
  const outputs = rewrite(
    results.map(([, x]) => x),
    standard,
  );
  const variables = reachable(outputs).filter((x): x is Variable => x instanceof Variable);
  const { graph, outputNames } = emitGraph({
    inputs: new Map(symbols.map(([name, x]) => [x, name])),
    weights: new Map(variables.map((v) => [v as Tensor, v.value])),
    outputs,
  });
  const names = new Map<NdArray, string>(variables.map((v, i) => [v.value, labels.get(v) ?? `variable_${i}`]));
  return named(
    graph,
    names,
    results.map(([name], i) => [outputNames[i], name] as const),
  );
}

/** Gives weights and outputs their names, and puts the weights inside. */
function named(
  { inputs, outputs, nodes, initializers }: OnnxGraph,
  weights: ReadonlyMap<NdArray, string>,
  results: readonly (readonly [value: string, name: string])[],
): OnnxGraph {
  const renamed = new Map(initializers.map(({ name, array }) => [name, weights.get(array) ?? name]));
  const values = new Map(outputs.map((value) => [value.name, value]));
  const identity = ([value, name]: readonly [string, string]): OnnxNode => ({
    type: 'Identity',
    domain: '',
    inputs: [value],
    outputs: [name],
    attributes: {},
  });
  return {
    inputs,
    outputs: results.map(([value, name]) => ({ ...values.get(value)!, name })),
    initializers: initializers.map(({ name, array }) => ({ name: renamed.get(name)!, array, external: false })),
    nodes: [
      ...nodes.map((node) => ({ ...node, inputs: node.inputs.map((name) => renamed.get(name) ?? name) })),
      ...results.map(identity),
    ],
  };
}

/** What onnxruntime alone computes in one node, in standard operators. */
const standard: Rules = {
  matmul: plainMatmul,
  conv2dWeight: ([x, g], attrs) => weightGradientByTaps(x, g, attrs as WeightGradientAttrs),
  geluTanh: ([x]) =>
    x.mul(
      x
        .mul(Math.sqrt(8 / Math.PI))
        .mul(x.square().mul(0.044715).add(1))
        .sigmoid(),
    ),
  sigmoidLinear: ([x], { alpha }) => x.mul(x.mul(alpha as number).sigmoid()),
};

/** The graph of one batch size made good for all, by comparing it with the graph of another. */
function withAnyBatch(graph: OnnxGraph, other: OnnxGraph): OnnxGraph {
  const [size, otherSize] = batchSizes;
  const fail = (what: string): never => {
    throw new Error(`toOnnx: ${what} depends on the batch size; give the size as a number instead of 'batch'`);
  };
  if (`${graph.nodes.map((node) => node.type)}` !== `${other.nodes.map((node) => node.type)}`) fail('the graph');
  const arrays = new Map(other.initializers.map(({ name, array }) => [name, array]));
  const counterparts = new Map(
    graph.nodes.flatMap((node, i) => node.inputs.map((name, k) => [name, arrays.get(other.nodes[i].inputs[k])])),
  );
  const shapes = new Set(graph.nodes.filter((node) => node.type === 'Reshape').map((node) => node.inputs[1]));
  const elsewhere = new Set(
    graph.nodes.flatMap((node) => (node.type === 'Reshape' ? node.inputs.slice(0, 1) : node.inputs)),
  );
  const initializers = graph.initializers.map((initializer): OnnxInitializer => {
    const { name, array } = initializer;
    const twin = counterparts.get(name);
    if (!twin || array === twin) return initializer;
    const [values, others] = [array, twin].map(({ data }) => [...data].map(Number));
    const changed = values.flatMap((value, at) => (value === others[at] ? [] : [at]));
    if (changed.length === 0 && values.length === others.length) return initializer;
    const [at] = changed;
    if (changed.length > 1 || !shapes.has(name) || elsewhere.has(name) || values[at] * otherSize !== others[at] * size)
      fail(graph.nodes.find((node) => node.inputs.includes(name))?.type ?? name);
    const free = (array.data as BigInt64Array<ArrayBuffer>).with(at, -1n);
    return { ...initializer, array: { ...array, data: free } as NdArray };
  });
  const anyBatch = (values: OnnxGraph['inputs']) =>
    values.map((value) => ({ ...value, shape: value.shape.map((d) => (d === size ? 'batch' : d)) }));
  return { ...graph, initializers, inputs: anyBatch(graph.inputs), outputs: anyBatch(graph.outputs) };
}
