import type { DType, NdArray, Shape } from '../array/index.js';
import type { Attributes, OnnxGraph, OnnxValue } from '../runtime/index.js';
import { Tensor } from './tensor.js';

export type Attrs = Readonly<Record<string, unknown>>;

/** What a primitive needs to write itself as ONNX. */
export interface Emitter {
  /** The value name of an already emitted tensor. */
  name(tensor: Tensor): string;
  /** Is the k-th output of this node read by anyone? */
  uses(node: Tensor, output: number): boolean;
  /** Adds an ONNX node and returns the names of its outputs ('' in `outputs` leaves one out). */
  node(
    type: string,
    inputs: readonly string[],
    attributes?: Attributes,
    options?: { domain?: string; outputs?: readonly boolean[] },
  ): string[];
  /** Adds a small constant and returns its name. */
  constant(array: NdArray): string;
  /** A value name of its own, for the inputs of a subgraph. */
  fresh(): string;
  /** Collects the nodes that `build` adds into a subgraph, which may read everything named outside it. */
  subgraph(inputs: readonly OnnxValue[], build: () => readonly OnnxValue[]): OnnxGraph;
  /** Names a placeholder. */
  define(tensor: Tensor, name: string): void;
  /** Emits what these tensors need and is not there yet; `visit` may put something in place of a node, or behind it. */
  compute(tensors: readonly Tensor[], visit?: (node: Tensor, emit: () => void) => void): void;
}

/** A node as its gradient rule sees it: rematerialised inputs and output stand in for the original ones. */
export interface NodeView<A extends Attrs = Attrs> {
  readonly inputs: readonly Tensor[];
  readonly output: Tensor;
  readonly attrs: A;
}

/**
 * One rule per input: the gradient of that input, from the gradient of the output and, for primitives with several
 * outputs, those of the further ones (undefined where nothing depends on them). `null`: not differentiable.
 */
export type GradientRule = (g: Tensor, further: readonly (Tensor | undefined)[]) => Tensor;
export type GradientRules = readonly (GradientRule | null)[];

/** A primitive: its shape rule, its gradient (in other primitives, so that gradients have gradients), its ONNX form. */
export interface Op<A extends Attrs = Attrs> {
  readonly name: string;
  infer(inputs: readonly Tensor[], attrs: A): Output;
  emit(e: Emitter, node: Tensor, attrs: A): readonly string[];
  gradient?(node: NodeView<A>): GradientRules;
  /** Primitives with several outputs: those after the first. */
  further?(node: Tensor, attrs: A): readonly Output[];
  /** It treats all elements alike, wherever they lie: operands may share any layout. */
  readonly elementwise?: boolean;
  /** Elementwise primitives: the same operation as a JavaScript expression, for fused host loops. */
  readonly expression?: (...operands: string[]) => string;
}

export interface Output {
  readonly shape: Shape;
  readonly dtype: DType;
}

/** A rematerialised part of the graph: its nodes are built anew where the backward pass reads them. */
export type Section = symbol;

let section: Section | undefined;
let copy = '';

/** Runs `build` with every new node tagged as belonging to `tag`. */
export function inSection<T>(tag: Section, build: () => T): T {
  const outer = section;
  section = tag;
  try {
    return build();
  } finally {
    section = outer;
  }
}

/** Runs `build` so that its nodes are not merged with equal ones built outside. */
export function asCopy<T>(tag: string, build: () => T): T {
  const outer = [copy, section] as const;
  copy = tag;
  section = undefined;
  try {
    return build();
  } finally {
    [copy, section] = outer;
  }
}

/**
 * Builds a node, or finds it: the same primitive on the same inputs is the same node.
 * The table hangs on the input that passes first, of several on the youngest, so that it lives exactly as long as the
 * graph it belongs to.
 */
export function apply<A extends Attrs>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor {
  const key = `${op.name} ${inputs.map((x) => x.id)} ${JSON.stringify(attrs)} ${copy}`;
  let holder = inputs[0];
  for (const x of inputs)
    if (x.passing > holder.passing || (x.passing === holder.passing && x.id > holder.id)) holder = x;
  holder.consumers ??= new Map();
  const known = holder.consumers.get(key);
  if (known) return known;
  const { shape, dtype } = op.infer(inputs, attrs);
  const node = new Tensor(op as unknown as Op, inputs, attrs, shape, dtype, section);
  holder.consumers.set(key, node);
  return node;
}

/** Leaves have no inputs and are never merged. */
export function leaf(op: Op, attrs: Attrs, shape: Shape, dtype: DType): Tensor {
  return new Tensor(op, [], attrs, shape, dtype, undefined);
}

const output: Op<{ index: number }> = {
  name: 'output',
  infer: ([node], { index }) => node.op.further!(node, node.attrs)[index - 1],
  // The producing node has named all its outputs; the emitter looks this one up.
  emit: () => [],
};

/** The further output `index` (from 1) of a primitive with several. */
export const furtherOutput = (node: Tensor, index: number): Tensor => apply(output, [node], { index });
export const isFurtherOutput = (node: Tensor): boolean => node.op.name === 'output';
