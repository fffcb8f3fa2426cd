import { toFloat32 } from './float16.js';
import { type DataOf, type DType, fromBytes, type NdArray, type Shape } from './ndarray.js';

/** Bytes of a file that hold an array. */
export interface FileRange {
  readonly path: string;
  readonly begin: number;
  readonly end: number;
  /** What the bytes are. */
  readonly dtype: DType;
  /** @throws Error when the file is no longer the one that was opened. */
  check(): void;
  /** @throws Error when the file is no longer the one that was opened. */
  read(): Uint8Array;
  /** Fills `bytes` from a byte of the range on. @throws Error when the file is no longer the one that was opened. */
  readInto(bytes: Uint8Array, from: number): void;
}

/**
 * An array whose elements stay in their file until somebody asks for `data`. Engines map them from there, so a model
 * of gigabytes opens without a copy. 16-bit floats in the file may be float32 here.
 */
export class StoredArray<D extends DType = DType> implements NdArray<D> {
  #data: DataOf<D> | undefined;

  constructor(
    readonly dtype: D,
    readonly shape: Shape,
    private readonly range: FileRange,
  ) {}

  get data(): DataOf<D> {
    this.#data ??= this.load();
    return this.#data;
  }

  /** Where the elements are; undefined once they are in memory, where they may have been changed. */
  get stored(): FileRange | undefined {
    return this.#data ? undefined : this.range;
  }

  /** The same elements, widened when they are read. */
  asFloat32(): StoredArray<'float32'> {
    return new StoredArray('float32', this.shape, this.range);
  }

  /** The same elements in another shape of as many. */
  reshaped(shape: Shape): StoredArray<D> {
    return new StoredArray(this.dtype, shape, this.range);
  }

  private load(): DataOf<D> {
    const array = fromBytes(this.range.read(), this.shape, this.range.dtype);
    return (array.dtype === this.dtype ? array : toFloat32(array)).data as DataOf<D>;
  }
}
