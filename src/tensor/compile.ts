import type { NdArray } from '../array/index.js';
import {
  convBlock,
  type Device,
  type DeviceValue,
  inTurn,
  Session,
  type SessionOptions,
  staysOn,
  toDeviceValue,
  toHost,
} from '../runtime/index.js';
import { discard } from './discard.js';
import { forFrozenCpu } from './frozenCpu.js';
import { emitGraph, reachable } from './graph.js';
import { type HostLoop, hostLoops } from './hostLoop.js';
import { withBlockedLayout } from './ops/blockedLayout.js';
import { input } from './ops/leaves.js';
import { isDraw, samplerOf } from './ops/random.js';
import { PreparedWeight } from './preparedWeight.js';
import { quantized } from './quantize.js';
import type { Tensor } from './tensor.js';
import { arrayLeaf, flatten, mapTree, nameLeaf, structureOf, type Tree, tensorLeaf } from './tree.js';
import { collectUpdates, Variable } from './variable.js';
import { forWebGpu } from './webgpu.js';

/** The same structure with host arrays in place of tensors. */
export type Hosted<T> = T extends Tensor ? NdArray : { [K in keyof T]: Hosted<T[K]> };

export interface CompileOptions {
  /** Default 'cpu'. On 'webgpu' variables stay on the GPU between calls: see {@link Variable}. */
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
  /**
   * 'int8' rounds large frozen weights to 8 bits, and what they are multiplied by: a quarter of the memory, less time,
   * and an error of one to three hundredths. On the CPU only. Default 'float32'.
   */
  readonly weights?: 'float32' | 'int8';
}

export interface Compiled<A extends readonly unknown[], R> {
  (...args: { [I in keyof A]: Hosted<A[I]> }): Promise<Hosted<R>>;
  /** Frees the sessions, after the calls under way; later calls are refused. Variables move to host memory. */
  release(): Promise<void>;
}

/**
 * Makes a function of tensors callable with arrays. It is traced once per combination of input shapes and dtypes;
 * variables it reads are its state, and those it assigns are updated in place after each call. Calls take turns.
 * @throws (the promise) TypeError for arguments or results that are no arrays; Error when the device is not there,
 * after `release`, and when a tensor of another function is used; RangeError for weights in 8 bits elsewhere than in
 * inference on the CPU.
 */
export function compile<A extends readonly Tree<Tensor>[], R extends Tree<Tensor>>(
  fn: (...args: A) => R,
  options: CompileOptions = {},
): Compiled<A, R> {
  const programs = new Map<string, Program>();
  let released = false;
  const call = async (args: readonly Tree<NdArray>[]): Promise<unknown> => {
    if (released) throw new Error(`compile: ${fn.name || 'a function'} was called after its release`);
    const leaves = flatten(args, arrayLeaf, 'an argument');
    const key = leaves.map((x) => `${x.dtype}[${x.shape}]`).join() + structureOf(args);
    let program = programs.get(key);
    if (program?.isStale()) {
      programs.delete(key);
      await program.release();
      program = undefined;
    }
    if (!program) {
      program = await Program.create(fn as unknown as (...args: Tree<Tensor>[]) => Tree<Tensor>, args, options);
      programs.set(key, program);
    }
    return program.run(leaves);
  };
  const release = async () => {
    released = true;
    for (const program of programs.values()) await program.release();
    programs.clear();
  };
  return Object.assign((...args: readonly Tree<NdArray>[]) => inTurn(() => call(args)), {
    release: () => inTurn(release),
  }) as unknown as Compiled<A, R>;
}

/** Computes tensors that depend on no inputs. */
export function evaluate(tensor: Tensor, options?: CompileOptions): Promise<NdArray>;
export function evaluate(tensors: readonly Tensor[], options?: CompileOptions): Promise<NdArray[]>;
export function evaluate<K extends string>(
  tensors: Record<K, Tensor>,
  options?: CompileOptions,
): Promise<Record<K, NdArray>>;
export function evaluate(tensors: Tree<Tensor>, options: CompileOptions = {}): Promise<Tree<NdArray>> {
  return inTurn(async () => {
    const program = await Program.create(() => tensors, [], options);
    try {
      return await program.run([]);
    } finally {
      await program.release();
    }
  });
}

/** What is left of a traced function: names in its session. The graph itself would be walked by each garbage collection. */
interface Trace {
  readonly device: Device;
  /** Absent when there is nothing to compute before the loops. */
  readonly session: Session | undefined;
  /** Of the arguments; undefined for one it does not read. */
  readonly args: readonly (string | undefined)[];
  readonly live: ReadonlyMap<Variable, string>;
  /** In the order they were written. */
  readonly draws: readonly { readonly name: string; readonly sample: () => NdArray }[];
  /** Versions of the variables whose values are in the session. */
  readonly frozen: ReadonlyMap<Variable, number>;
  readonly result: Tree<string>;
  readonly loops: readonly NamedLoop[];
  /** Variables that the graph updates. */
  readonly updates: ReadonlyMap<Variable, string>;
  /** All that the session is asked for. */
  readonly outputs: readonly string[];
}

/** A host loop, and which outputs it reads. */
interface NamedLoop extends Pick<HostLoop, 'variables' | 'run'> {
  readonly arrays: readonly string[];
  readonly scalars: readonly string[];
}

/** One traced function for one set of shapes: a session, and the host loops that follow it. */
class Program {
  /** What only the host loops read. */
  private readonly loopOnly: readonly string[];

  private constructor(private readonly trace: Trace) {
    const kept = new Set(flatten(trace.result, nameLeaf));
    this.loopOnly = [...new Set(trace.loops.flatMap((loop) => loop.arrays))].filter((name) => !kept.has(name));
  }

  static async create(
    fn: (...args: Tree<Tensor>[]) => Tree<Tensor>,
    args: readonly Tree<NdArray>[],
    options: CompileOptions,
  ): Promise<Program> {
    const { device = 'cpu', threads, spinning, freeze = false, weights: precision = 'float32' } = options;
    if (precision === 'int8' && (device !== 'cpu' || !freeze))
      throw new RangeError(
        `compile: weights in 8 bits are for inference on the CPU (freeze: true), not ${freeze ? `on ${device}` : 'for weights that change'}`,
      );
    const symbols = args.map((arg) => mapTree<NdArray, Tensor>(arg, arrayLeaf, (x) => input(x.shape, x.dtype)));
    const { result, updates } = collectUpdates(() => fn(...symbols));
    const results = flatten(result, tensorLeaf, 'the result');
    // Where state cannot stay on the device, the host updates it; gradients come back to it, and that is all.
    const { loops, rest } = device === 'webgpu' ? { loops: [], rest: updates } : hostLoops(updates);
    const fetched = [...new Set([...results, ...loops.flatMap((loop) => [...loop.arrays, ...loop.scalars])])];
    const wanted = [...fetched, ...rest.values()];
    // Weights may be given another form on the host, and a value may still be on the GPU.
    if (freeze) for (const x of reachable(wanted)) if (x instanceof Variable) await x.state.read();
    const outputs = await forDevice(precision === 'int8' ? quantized(wanted) : wanted, device, freeze);

    const leaves = reachable(outputs).filter((x) => x.inputs.length === 0);
    const variables = leaves.filter((x): x is Variable => x instanceof Variable);
    const frozen = variables.filter((v) => freeze && !updates.has(v) && !(v instanceof PreparedWeight));
    const prepared = variables.filter((v) => v instanceof PreparedWeight);
    const weights = new Map<Tensor, NdArray>();
    for (const v of frozen) weights.set(v, await v.state.read());
    const live = new Map(variables.filter((v) => !weights.has(v)).map((v, i) => [v, `v${i}`]));
    const draws = new Map(leaves.filter(isDraw).map((x, i) => [x, `r${i}`]));
    const inputs = new Map(flatten(symbols, tensorLeaf).map((x, i) => [x, `i${i}`]));

    if ([...inputs.keys(), ...live.keys(), ...outputs].some((x) => x.dtype === 'bfloat16'))
      throw new TypeError(
        'compile: onnxruntime takes bfloat16 as frozen weights only: use { freeze: true } and cast them, or convert with toFloat32',
      );

    const { graph, outputNames } = emitGraph({ inputs: new Map([...inputs, ...live, ...draws]), weights, outputs });
    const nameOf = new Map(fetched.map((x, i) => [x, outputNames[i]]));
    const names = (tensors: readonly Tensor[]) => tensors.map((x) => nameOf.get(x)!);
    const nextNames = outputNames.slice(fetched.length);
    // The engine's optimiser breaks the order of a training step, and merges checkpointed sections with their copies.
    const asWritten = updates.size > 0 || reachable(wanted).some((x) => x.section !== undefined);
    const engine: SessionOptions = {
      device,
      threads,
      spinning,
      optimization: asWritten ? 'none' : 'all',
      resident: [...rest.keys()].flatMap((v, i) => (staysOn(device, v.dtype) ? [nextNames[i]] : [])),
    };
    const session = outputs.length > 0 ? await Session.create(graph, engine) : undefined;
    const read = new Set(graph.inputs.map((value) => value.name));
    return new Program({
      device,
      session,
      args: [...inputs.values()].map((name) => (read.has(name) ? name : undefined)),
      live,
      draws: [...draws].map(([x, name]) => ({ name, sample: samplerOf(x) })),
      frozen: new Map([
        ...frozen.map((v) => [v, v.version] as const),
        ...prepared.map((v) => [v.source, v.sourceVersion] as const),
      ]),
      result: mapTree(result, tensorLeaf, (x) => nameOf.get(x)!),
      loops: loops.map(({ arrays, scalars, variables, run }) => ({
        arrays: names(arrays),
        scalars: names(scalars),
        variables,
        run,
      })),
      updates: new Map([...rest.keys()].map((v, i) => [v, nextNames[i]])),
      outputs: outputNames,
    });
  }

  isStale(): boolean {
    return [...this.trace.frozen].some(([v, version]) => v.version !== version);
  }

  async run(args: readonly NdArray[]): Promise<Tree<NdArray>> {
    const { device, session, live, draws, loops, updates, outputs, result } = this.trace;
    const feeds: Record<string, DeviceValue> = {};
    this.trace.args.forEach((name, i) => {
      if (name) feeds[name] = toDeviceValue(args[i]);
    });
    for (const [v, name] of live) feeds[name] = await v.state.on(device);
    for (const v of loops.flatMap((loop) => loop.variables)) await v.state.read();
    for (const { name, sample } of draws) feeds[name] = toDeviceValue(sample());

    const values = (await session?.run(feeds, outputs)) ?? {};
    const read = (name: string): NdArray => toHost(values[name]);
    for (const loop of loops)
      loop.run(
        loop.arrays.map(read),
        loop.scalars.map((name) => (read(name).data as Float32Array)[0]),
      );
    for (const [v, name] of updates) v.receive(values[name], session!);
    discard(this.loopOnly.map((name) => (values[name].data as Float32Array).buffer)); // gradients are as large as the model
    return mapTree(result, nameLeaf, read);
  }

  async release(): Promise<void> {
    const { session, updates } = this.trace;
    if (!session) return;
    for (const v of updates.keys()) await v.state.leave(session);
    await session.release();
  }
}

/** In the primitives that suit the device. Most frozen weights are re-laid out by the engine itself. */
async function forDevice(outputs: readonly Tensor[], device: Device, freeze: boolean): Promise<readonly Tensor[]> {
  if (device === 'webgpu') return forWebGpu(outputs);
  const block = device === 'cpu' ? await convBlock() : undefined;
  if (device === 'cpu' && freeze) return forFrozenCpu(outputs, block);
  return block ? withBlockedLayout(outputs, block) : outputs;
}
