import type { Op } from './op.js';

/** A fused loop over the elements of arrays of one length, as data. */
export interface LoopCode {
  /** The counts of what it reads. */
  readonly variables: number;
  readonly arrays: number;
  readonly scalars: number;
  readonly steps: readonly { readonly op: Op; readonly operands: readonly Operand[] }[];
  /** What the first variables become, after everything was read. */
  readonly results: readonly Operand[];
}
/** By its index; a step is one before. */
export type Operand =
  | { readonly variable: number }
  | { readonly array: number }
  | { readonly scalar: number }
  | { readonly literal: number }
  | { readonly step: number };

/** Runs the loop over all elements of the variables' values, then of the arrays; the first variables are updated. */
export type Loop = (values: readonly Float32Array[], scalars: readonly number[]) => void;

/** Floats of each array that are worked on at a time: few enough that those of all arrays stay in a core's cache. */
const CHUNK = 8192;
const LANES = 4;

/**
 * The loop as WebAssembly on four lanes of float32, rounded after every operation as in onnxruntime: 2.5 times as fast
 * as JavaScript (docs/performance.md). A module reaches its own memory only, so chunks are copied in and out.
 * @returns undefined where there are no such lanes, or for a primitive without an instruction.
 */
export function wasmLoop(code: LoopCode): Loop | undefined {
  if (code.steps.some(({ op }) => !(op.name in instructions)) || typeof WebAssembly === 'undefined') return undefined;
  const bytes = module(code);
  if (!WebAssembly.validate(bytes)) return undefined;
  const slots = CHUNK * (code.variables + code.arrays);
  const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * (slots + code.scalars)) / 65536) });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { m: memory } });
  const run = exports.f as (bytesOfEach: number) => void;
  const floats = new Float32Array(memory.buffer);
  return (values, scalars) => {
    floats.set(scalars, slots);
    const [{ length }] = values;
    for (let from = 0; from < length; from += CHUNK) {
      const count = Math.min(CHUNK, length - from);
      for (const [k, array] of values.entries()) floats.set(array.subarray(from, from + count), k * CHUNK);
      run(4 * LANES * Math.ceil(count / LANES));
      for (const k of code.results.keys()) values[k].set(floats.subarray(k * CHUNK, k * CHUNK + count), from);
    }
  };
}

/** Of the f32x4 kind, after the prefix 0xfd. */
const instructions: Readonly<Record<string, number>> = {
  abs: 0xe0,
  neg: 0xe1,
  sqrt: 0xe3,
  add: 0xe4,
  sub: 0xe5,
  mul: 0xe6,
  div: 0xe7,
  minimum: 0xe8,
  maximum: 0xe9,
};

/** The module's bytes, section by section. Its one function takes the bytes to work on of each array. */
function module({ variables, arrays, steps, results }: LoopCode): Uint8Array<ArrayBuffer> {
  const [I32, V128] = [0x7f, 0x7b];
  const [bytes, at, first] = [0, 1, 2]; // locals: the parameter, the place in each array, then a vector per step
  const get = (local: number) => [0x20, ...leb(local)];
  const set = (local: number) => [0x21, ...leb(local)];
  const simd = (code: number) => [0xfd, ...leb(code)];
  const memory = (code: number, offset: number) => [...simd(code), 2, ...leb(offset)];
  const push = (x: Operand): number[] => {
    if ('step' in x) return get(first + x.step);
    if ('variable' in x) return [...get(at), ...memory(0x00, 4 * CHUNK * x.variable)];
    if ('array' in x) return [...get(at), ...memory(0x00, 4 * CHUNK * (variables + x.array))];
    // One float for all lanes.
    if ('scalar' in x) return [0x41, 0, ...memory(0x09, 4 * (CHUNK * (variables + arrays) + x.scalar))];
    return [...simd(0x0c), ...new Uint8Array(new Float32Array(LANES).fill(x.literal).buffer)];
  };
  const next = first + steps.length;
  const body = [
    ...[0x03, 0x40], // loop
    ...steps.flatMap(({ op, operands }, i) => [
      ...operands.flatMap(push),
      ...simd(instructions[op.name]),
      ...set(first + i),
    ]),
    ...results.flatMap((x, i) => [...push(x), ...set(next + i)]), // all is read before anything is written
    ...results.flatMap((_, i) => [...get(at), ...get(next + i), ...memory(0x0b, 4 * CHUNK * i)]),
    ...[...get(at), 0x41, 4 * LANES, 0x6a, 0x22, at], // at += one vector
    ...[...get(bytes), 0x49, 0x0d, 0], // again while it is less than `bytes`
    ...[0x0b, 0x0b],
  ];
  const locals = [2, 1, I32, ...leb(steps.length + results.length), V128];
  const code = [...locals, ...body];
  const section = (id: number, content: readonly number[]) => [id, ...leb(content.length), ...content];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // magic, version
    ...section(1, [1, 0x60, 1, I32, 0]), // a function type: i32 to nothing
    ...section(2, [1, 1, 0x6d, 1, 0x6d, 2, 0, 1]), // import: memory m.m
    ...section(3, [1, 0]),
    ...section(7, [1, 1, 0x66, 0, 0]), // export: function f
    ...section(10, [1, ...leb(code.length), ...code]),
  ]);
}

/** Unsigned LEB128. */
const leb = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)]);
