import { type NdArray, ndarray, type Shape, StoredArray, sizeOf, toFloat32, zeros } from '../array/index.js';
import type { Generator } from '../random/index.js';
import { Variable } from '../tensor/index.js';

/** A trained array, initialised on the host. Its name is its field's path: see {@link Module.namedVariables}. */
export const parameter = (value: NdArray<'float32'>): Variable => new Variable(value, true, '');
/** State that is saved but not trained (running statistics). */
export const buffer = (value: NdArray): Variable => new Variable(value, false, '');

/** A fresh array of ones: how scales start. */
export const ones = (shape: Shape): NdArray<'float32'> => ndarray(new Float32Array(sizeOf(shape)).fill(1), shape);

/** Sets every parameter of a fresh module to zero: for branches that start without effect. */
export function zeroed<M extends Module>(module: M): M {
  for (const v of module.parameters()) v.set(zeros(v.shape));
  return module;
}

/** `downBlocks` is `down_blocks` in a checkpoint; names that have underscores or begin with a capital stay as they are. */
export const snakeCase = (name: string): string =>
  /^[A-Z]/.test(name) ? name : name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/**
 * A part of a model: it declares its parts as fields and its computation as a `forward` method.
 * A parameter's name is its field path in snake_case, which makes the fields the checkpoint's format:
 * `downBlocks[0].resnets[1].conv1.weight` is `down_blocks.0.resnets.1.conv1.weight`.
 */
export abstract class Module {
  /** Every parameter and buffer by its checkpoint name, in the order of declaration; a shared one under its first name. */
  namedVariables(): Map<string, Variable> {
    const named = new Map<string, Variable>();
    const seen = new Set<unknown>();
    const visit = (value: unknown, path: string): void => {
      if (typeof value !== 'object' || value === null || seen.has(value)) return;
      if (value instanceof Variable) {
        seen.add(value);
        named.set(path, value);
      } else if (value instanceof Module || Array.isArray(value)) {
        seen.add(value);
        for (const [key, part] of Object.entries(value)) visit(part, join(path, key));
      }
    };
    visit(this, '');
    return named;
  }

  /** This module ('') and every part of it by its path, as in a checkpoint; a shared one under its first path. */
  namedModules(): Map<string, Module> {
    const named = new Map<string, Module>();
    const seen = new Set<unknown>();
    const visit = (value: unknown, path: string): void => {
      if (!(value instanceof Module || Array.isArray(value)) || seen.has(value)) return;
      seen.add(value);
      if (value instanceof Module) named.set(path, value);
      for (const [key, part] of Object.entries(value)) visit(part, join(path, key));
    };
    visit(this, '');
    return named;
  }

  /** The trained variables, by name. */
  namedParameters(): Map<string, Variable> {
    return new Map([...this.namedVariables()].filter(([, v]) => v.trainable));
  }

  parameters(): Variable[] {
    return [...this.namedParameters().values()];
  }

  /** Number of trained scalars. */
  parameterCount(): number {
    return this.parameters().reduce((n, p) => n + p.size, 0);
  }

  /** The values by their checkpoint names. @throws Error when a training left one on the GPU: see {@link readStateDict}. */
  stateDict(): Map<string, NdArray> {
    return new Map([...this.namedVariables()].map(([name, v]) => [name, v.value]));
  }

  /** The same, fetched from the GPU where need be. */
  async readStateDict(): Promise<Map<string, NdArray>> {
    for (const v of this.namedVariables().values()) await v.read();
    return this.stateDict();
  }

  /**
   * Takes the values of a checkpoint; they are copied, and converted from 16-bit floats.
   * @throws Error that lists missing and unexpected names, and RangeError on a wrong shape; then nothing is changed.
   */
  loadStateDict(state: ReadonlyMap<string, NdArray>): void {
    const variables = this.namedVariables();
    const missing = [...variables.keys()].filter((name) => !state.has(name));
    const unexpected = [...state.keys()].filter((name) => !variables.has(name));
    if (missing.length || unexpected.length)
      throw new Error(
        `${this.constructor.name}: the checkpoint does not fit: ${[
          missing.length && `missing ${listed(missing)}`,
          unexpected.length && `unexpected ${listed(unexpected)}`,
        ]
          .filter(Boolean)
          .join('; ')}`,
      );
    for (const [name, v] of variables)
      if (`${state.get(name)!.shape}` !== `${v.shape}`)
        throw new RangeError(
          `${this.constructor.name}: ${name} has shape [${v.shape}], the checkpoint's is [${state.get(name)!.shape}]`,
        );
    for (const [name, v] of variables) v.set(converted(state.get(name)!, v));
  }
}

const join = (path: string, key: string): string => (path ? `${path}.${snakeCase(key)}` : snakeCase(key));

const listed = (names: readonly string[]): string =>
  names.length > 6 ? `${names.slice(0, 6).join(', ')} and ${names.length - 6} more` : names.join(', ');

function converted(array: NdArray, v: Variable): NdArray {
  if (array instanceof StoredArray && array.stored && (array.dtype === v.dtype || v.dtype === 'float32'))
    return array.dtype === v.dtype ? array : array.asFloat32();
  if (array.dtype === v.dtype) return { ...array, data: array.data.slice() } as NdArray;
  if (v.dtype !== 'float32') throw new TypeError(`a ${v.dtype} variable cannot take ${array.dtype} values`);
  return toFloat32(array);
}

let training: { readonly rng?: Generator } | undefined;

/**
 * Traces `build` with dropout and batch statistics on. Outside it, modules are in evaluation mode.
 * @param rng what dropout draws from, at each call of the compiled function.
 */
export function inTraining<T>(build: () => T, rng?: Generator): T {
  const outer = training;
  training = { rng };
  try {
    return build();
  } finally {
    training = outer;
  }
}

export const isTraining = (): boolean => training !== undefined;

/** The generator of the training step being traced. @throws Error when there is none. */
export function trainingGenerator(user: string): Generator {
  if (!training?.rng) throw new Error(`${user}: needs a generator, as in inTraining(() => ..., rng)`);
  return training.rng;
}
