import { type DType, type NdArray, StoredArray, sizeOf } from '../array/index.js';
import { type DeviceValue, inTurn, type Session, State, toHost } from '../runtime/index.js';
import type { Op } from './op.js';
import { sameShape } from './shape.js';
import { Tensor } from './tensor.js';

const variableOp: Op = {
  name: 'variable',
  infer: () => {
    throw new Error('leaves have no inputs to infer from');
  },
  emit: () => [],
};

/**
 * A leaf with a state that outlives a call: a parameter, a running statistic, an optimiser's moment.
 * A function compiled for `webgpu` leaves what it assigned on the GPU; functions for other devices may share the variable.
 */
export class Variable extends Tensor {
  /** Where the value lives; compiled functions read and replace it. */
  readonly state: State;
  /** Counts changes, so that a function compiled with frozen variables knows when it is stale. */
  version = 0;

  constructor(
    value: NdArray,
    /** Parameters are trained, buffers are not. */
    readonly trainable: boolean,
    readonly label: string,
  ) {
    super(variableOp, [], {}, value.shape, value.dtype, undefined);
    this.state = new State(value);
  }

  /**
   * The current value. The array is the state itself: compiled functions read and update it in place.
   * Who writes into it calls {@link changed} afterwards.
   * @throws Error when the value is on the GPU: then `await read()` first.
   */
  get value(): NdArray {
    const { host } = this.state;
    if (!host)
      throw new Error(`${this.label || 'variable'} [${this.shape}]: its value is on the GPU; call await read() first`);
    return host;
  }

  /** The current value, fetched from the GPU if it is there; `value` is the same array until the next assignment. */
  read(): Promise<NdArray> {
    return inTurn(() => this.state.read());
  }

  /** Tells that `value` was written in place: frozen functions and the GPU take it anew. */
  changed(): void {
    this.state.changed();
    this.version++;
  }

  /** @throws RangeError / TypeError when shape or dtype differ. */
  set(value: NdArray): void {
    if (
      !sameShape(value.shape, this.shape) ||
      (!(value instanceof StoredArray) && sizeOf(value.shape) !== value.data.length)
    )
      throw new RangeError(`${this.label || 'variable'}: holds [${this.shape}], got [${value.shape}]`);
    if (value.dtype !== this.dtype)
      throw new TypeError(`${this.label || 'variable'}: holds ${this.dtype}, got ${value.dtype}`);
    this.state.put(value);
    this.version++;
  }

  /** Takes over what a session computed as its next value. */
  receive(next: DeviceValue, from: Session): void {
    if (next.location === 'gpu-buffer') this.state.take(next, from);
    else this.state.put(toHost(next));
    this.version++;
  }

  /** Inside a compiled function: gives the variable this value once the call is done. Reads still see the old one. */
  assign(next: Tensor): void {
    if (!sameShape(next.shape, this.shape) || next.dtype !== this.dtype)
      throw new RangeError(
        `${this.label || 'variable'}: holds [${this.shape}] ${this.dtype}, assigned [${next.shape}] ${next.dtype}`,
      );
    if (!pendingUpdates) throw new Error('assign: only inside a function that is being compiled');
    pendingUpdates.set(this, next);
  }
}

let pendingUpdates: Map<Variable, Tensor> | undefined;

/** Runs `build` and returns what it assigned beside its result. */
export function collectUpdates<T>(build: () => T): { result: T; updates: Map<Variable, Tensor> } {
  const outer = pendingUpdates;
  const updates = new Map<Variable, Tensor>();
  pendingUpdates = updates;
  try {
    return { result: build(), updates };
  } finally {
    pendingUpdates = outer;
  }
}

export const variable = (value: NdArray<DType>, { trainable = true, name = '' } = {}): Variable =>
  new Variable(value, trainable, name);
