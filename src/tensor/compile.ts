import type { NdArray } from '../array/index.js';
import { type Device, type DeviceValue, Session, toDeviceValue, toHost } from '../runtime/index.js';
import { emitGraph, reachable } from './graph.js';
import { type HostLoop, hostLoops } from './hostLoop.js';
import { input } from './ops/leaves.js';
import { drawn, isDraw } from './ops/random.js';
import { Tensor } from './tensor.js';
import { collectUpdates, Variable } from './variable.js';

/** A tensor, or lists and records of them. */
export type Tree<T> = T | readonly Tree<T>[] | { readonly [key: string]: Tree<T> };
/** The same structure with host arrays in place of tensors. */
export type Hosted<T> = T extends Tensor ? NdArray : { [K in keyof T]: Hosted<T[K]> };

export interface CompileOptions {
  /** Default 'cpu'. */
  readonly device?: Device;
  /** Threads inside one operation. */
  readonly threads?: number;
  /** Busy-wait between operations; default true. */
  readonly spinning?: boolean;
  /**
   * Bake the variables' present values into the session, which lets the engine prepack and fuse; for inference.
   * When a variable has changed since, the session is made anew.
   */
  readonly freeze?: boolean;
}

export interface Compiled<A extends readonly unknown[], R> {
  (...args: { [I in keyof A]: Hosted<A[I]> }): Promise<Hosted<R>>;
  /** Frees the sessions. */
  release(): Promise<void>;
}

/**
 * Makes a function of tensors callable with arrays. It is traced once per combination of input shapes and dtypes;
 * variables it reads are its state, and those it assigns are updated in place after each call.
 */
export function compile<A extends readonly Tree<Tensor>[], R extends Tree<Tensor>>(
  fn: (...args: A) => R,
  options: CompileOptions = {},
): Compiled<A, R> {
  const programs = new Map<string, Promise<Program>>();
  let last: Promise<unknown> = Promise.resolve();
  const call = async (args: readonly Tree<NdArray>[]): Promise<unknown> => {
    const leaves = flatten<NdArray>(args, isArray);
    const key = leaves.map((x) => `${x.dtype}[${x.shape}]`).join() + structureOf(args);
    let program = programs.get(key);
    if (program && (await program).isStale()) {
      await (await program).release();
      program = undefined;
    }
    if (!program) {
      program = Program.create(fn as unknown as (...args: Tree<Tensor>[]) => Tree<Tensor>, args, options);
      programs.set(key, program);
      program.catch(() => programs.delete(key));
    }
    return (await program).run(leaves);
  };
  const compiled = (...args: readonly Tree<NdArray>[]) => {
    // Calls share buffers and state, so they take turns.
    const result = last.then(() => call(args));
    last = result.catch(() => {});
    return result;
  };
  const release = async () => {
    await last;
    for (const program of programs.values()) await (await program).release();
    programs.clear();
  };
  return Object.assign(compiled, { release }) as unknown as Compiled<A, R>;
}

/** Computes tensors that depend on no inputs. */
export function evaluate(tensor: Tensor, options?: CompileOptions): Promise<NdArray>;
export function evaluate(tensors: readonly Tensor[], options?: CompileOptions): Promise<NdArray[]>;
export function evaluate<K extends string>(
  tensors: Record<K, Tensor>,
  options?: CompileOptions,
): Promise<Record<K, NdArray>>;
export async function evaluate(tensors: Tree<Tensor>, options: CompileOptions = {}): Promise<Tree<NdArray>> {
  const program = await Program.create(() => tensors, [], options);
  const values = await program.run([]);
  await program.release();
  return values;
}

/** One traced function for one set of shapes: a session, and the host loops that follow it. */
class Program {
  /** What only the host loops read. */
  private readonly loopOnly: readonly Tensor[];

  private constructor(
    private readonly session: Session,
    private readonly inputNames: ReadonlyMap<Tensor, string>,
    private readonly inputs: readonly Tensor[],
    private readonly live: readonly Variable[],
    private readonly draws: readonly Tensor[],
    private readonly frozen: ReadonlyMap<Variable, number>,
    private readonly result: Tree<Tensor>,
    private readonly rest: ReadonlyMap<Variable, Tensor>,
    private readonly loops: readonly HostLoop[],
    private readonly names: ReadonlyMap<Tensor, string>,
  ) {
    const kept = new Set([...flatten<Tensor>(result, isTensor), ...rest.values()]);
    this.loopOnly = [...new Set(loops.flatMap((loop) => loop.arrays))].filter((x) => !kept.has(x));
  }

  static async create(
    fn: (...args: Tree<Tensor>[]) => Tree<Tensor>,
    args: readonly Tree<NdArray>[],
    options: CompileOptions,
  ): Promise<Program> {
    const device = options.device ?? 'cpu';
    const symbols = args.map((arg) => mapTree<NdArray, Tensor>(arg, isArray, (x) => input(x.shape, x.dtype)));
    const { result, updates } = collectUpdates(() => fn(...symbols));
    const { loops, rest } = device === 'cpu' ? hostLoops(updates) : { loops: [], rest: updates };
    const results = flatten<Tensor>(result, isTensor);
    const outputs = [
      ...new Set([...results, ...rest.values(), ...loops.flatMap((loop) => [...loop.arrays, ...loop.scalars])]),
    ];

    const leaves = reachable(outputs).filter((x) => x.inputs.length === 0);
    const variables = leaves.filter((x): x is Variable => x instanceof Variable);
    const draws = leaves.filter(isDraw);
    const frozen = new Map(options.freeze ? variables.filter((v) => !updates.has(v)).map((v) => [v, v.version]) : []);
    const live = variables.filter((v) => !frozen.has(v));
    const inputs = flatten<Tensor>(symbols, isTensor);
    const inputNames = new Map([
      ...inputs.map((x, i) => [x, `i${i}`] as const),
      ...live.map((v, i) => [v, `v${i}`] as const),
      ...draws.map((x, i) => [x, `r${i}`] as const),
    ]);
    const weights = new Map([...frozen.keys()].map((v) => [v as Tensor, v.value]));
    const { graph, outputNames } = emitGraph({ inputs: inputNames, weights, outputs });
    const session = await Session.create(graph, {
      device,
      threads: options.threads,
      spinning: options.spinning,
      optimization: updates.size > 0 ? 'none' : 'all',
    });
    const read = new Set(graph.inputs.map((value) => value.name));
    const used = new Map([...inputNames].filter(([, name]) => read.has(name)));
    const names = new Map(outputs.map((x, i) => [x, outputNames[i]]));
    return new Program(session, used, inputs, live, draws, frozen, result, rest, loops, names);
  }

  isStale(): boolean {
    return [...this.frozen].some(([v, version]) => v.version !== version);
  }

  async run(args: readonly NdArray[]): Promise<Tree<NdArray>> {
    const feeds: Record<string, DeviceValue> = {};
    this.inputs.forEach((x, i) => {
      const name = this.inputNames.get(x);
      if (name) feeds[name] = toDeviceValue(args[i]);
    });
    for (const v of this.live) feeds[this.inputNames.get(v)!] = deviceValueOf(v.value);
    for (const x of this.draws) feeds[this.inputNames.get(x)!] = toDeviceValue(drawn(x));

    const values = await this.session.run(feeds, [...new Set(this.names.values())]);
    const read = (x: Tensor): NdArray => toHost(values[this.names.get(x)!]);

    for (const loop of this.loops)
      loop.run(
        loop.arrays.map(read),
        loop.scalars.map((x) => (read(x).data as Float32Array)[0]),
      );
    for (const [v, next] of this.rest) v.set(read(next));
    this.discardLoopArrays(values);
    return mapTree<Tensor, NdArray>(this.result, isTensor, read);
  }

  /** Gradients are as large as the model: their memory goes back at once instead of waiting for the collector. */
  private discardLoopArrays(values: Readonly<Record<string, DeviceValue>>): void {
    const buffers = this.loopOnly.map((x) => (values[this.names.get(x)!].data as Float32Array).buffer as ArrayBuffer);
    if (buffers.length > 0) structuredClone(0, { transfer: buffers });
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

const deviceValues = new WeakMap<NdArray, DeviceValue>();
/** The engine's view of an array that stays the same object from call to call. */
function deviceValueOf(array: NdArray): DeviceValue {
  let value = deviceValues.get(array);
  if (!value) {
    value = toDeviceValue(array);
    deviceValues.set(array, value);
  }
  return value;
}

const isTensor = (x: unknown): x is Tensor => x instanceof Tensor;
const isArray = (x: unknown): x is NdArray => typeof x === 'object' && x !== null && 'dtype' in x && 'data' in x;

function mapTree<T, U>(tree: Tree<T>, isLeaf: (x: unknown) => x is T, f: (x: T) => U): Tree<U> {
  if (isLeaf(tree)) return f(tree);
  if (Array.isArray(tree)) return tree.map((x) => mapTree(x, isLeaf, f));
  return Object.fromEntries(Object.entries(tree as object).map(([k, x]) => [k, mapTree(x as Tree<T>, isLeaf, f)]));
}

function flatten<T>(tree: Tree<T>, isLeaf: (x: unknown) => x is T): T[] {
  const leaves: T[] = [];
  mapTree(tree, isLeaf, (x) => leaves.push(x));
  return leaves;
}

const structureOf = (tree: unknown): string => JSON.stringify(tree, (_, x) => (isArray(x) ? 0 : x));
