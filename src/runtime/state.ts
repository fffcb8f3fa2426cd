import type { DType, NdArray } from '../array/index.js';
import { type Device, type DeviceValue, type Session, toDeviceValue } from './session.js';
import { download, staysOn, upload } from './transfer.js';

/** A value on the GPU, with the session that it must not outlive: its memory is the session's to free. */
interface Buffer {
  value?: DeviceValue;
  owner?: Session;
}

/** Frees the buffers of states that were dropped: the garbage collector sees only their small handles. */
const forgotten = new FinalizationRegistry<Buffer>((buffer) => buffer.value?.dispose());

/**
 * An array that outlives calls and lives where it was last written: in host memory, or in a buffer of the GPU.
 * The other place gets a copy when it asks for one.
 */
export class State {
  #host: NdArray | undefined;
  /** The engine's view of the host array. */
  #hostValue: DeviceValue | undefined;
  readonly #buffer: Buffer = {};

  constructor(array: NdArray) {
    this.#host = array;
    forgotten.register(this, this.#buffer);
  }

  /** The array in host memory; undefined while only the GPU has the current one. */
  get host(): NdArray | undefined {
    return this.#host;
  }

  /** Puts another array in its place. */
  put(array: NdArray): void {
    this.#host = array;
    this.#hostValue = undefined;
    this.changed();
  }

  /** To be told when the host array was written in place: copies of it are out of date. */
  changed(): void {
    this.#buffer.value?.dispose();
    this.#buffer.value = undefined;
    this.#buffer.owner = undefined;
  }

  /** Puts an output that its session left on the GPU in its place, and frees the buffer it replaces. */
  take(value: DeviceValue, owner: Session): void {
    this.changed();
    this.#buffer.value = value;
    this.#buffer.owner = owner;
    this.#host = undefined;
    this.#hostValue = undefined;
  }

  /** The array in host memory, fetched if need be; the copy on the GPU stays. */
  async read(): Promise<NdArray> {
    this.#host ??= await download(this.#buffer.value!);
    return this.#host;
  }

  /** To be called before a session is released: what it left on the GPU moves to host memory. */
  async leave(owner: Session): Promise<void> {
    if (this.#buffer.owner !== owner) return;
    await this.read();
    this.changed();
  }

  /** What a session on this device is fed. */
  async on(device: Device): Promise<DeviceValue> {
    const buffer = this.#buffer.value;
    if (buffer && staysOn(device, buffer.type as DType)) return buffer;
    const host = await this.read();
    if (staysOn(device, host.dtype)) {
      this.#buffer.value = await upload(host);
      return this.#buffer.value;
    }
    this.#hostValue ??= toDeviceValue(host);
    return this.#hostValue;
  }
}
