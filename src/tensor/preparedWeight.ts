import { bytesPerElement, type FileRange, fromBytes, type NdArray, StoredArray, toFloat32 } from '../array/index.js';
import { discard } from './discard.js';
import { once } from './once.js';
import { Variable } from './variable.js';

/**
 * A frozen weight in another form, made on the host. It is fed at each call, because the engine would keep a second
 * copy, and shared by all sessions that read it.
 */
export class PreparedWeight extends Variable {
  readonly sourceVersion: number;

  constructor(
    value: NdArray,
    readonly source: Variable,
  ) {
    super(value, false, source.label);
    this.sourceVersion = source.version;
  }
}

/** Held by the sessions alone, so that a form lives no longer than the last of them. */
const known = new WeakMap<Variable, Map<string, WeakRef<PreparedWeight>>>();

/** The form of a weight that `make` makes, once until the weight changes. */
export function preparedWeight<W extends PreparedWeight>(source: Variable, form: string, make: () => W): W {
  const forms = once(known, source, () => new Map<string, WeakRef<PreparedWeight>>());
  const before = forms.get(form)?.deref() as W | undefined;
  if (before?.sourceVersion === source.version) return before;
  const made = make();
  forms.set(form, new WeakRef(made));
  return made;
}

const storedOf = ({ value }: Variable) => (value instanceof StoredArray ? value.stored : undefined);

/** Its numbers, for a moment: what lies in a file stays there, and what was read of it is freed at once. */
export function withNumbers<T>(weight: Variable, use: (numbers: NdArray<'float32'>) => T): T {
  const stored = storedOf(weight);
  if (!stored) return use(toFloat32(weight.value));
  const read = fromBytes(stored.read(), weight.shape, stored.dtype);
  const numbers = toFloat32(read);
  const result = use(numbers);
  discard([read.data.buffer, numbers.data.buffer]);
  return result;
}

/** Bytes of a band, which stay in the second cache. */
const BAND = 2 ** 20;

/** Its numbers in bands of rows, a multiple of `step` of them; of a weight in a file no more than a band is in memory. */
export function eachBand(weight: Variable, step: number, use: (rows: Float32Array, first: number) => void): void {
  const width = weight.size / weight.shape[0];
  const rows = step * Math.max(1, Math.floor(BAND / (4 * width * step)));
  const stored = storedOf(weight);
  const numbers = stored ? bandReader(stored, rows * width) : memoryReader(toFloat32(weight.value).data);
  for (let first = 0; first < weight.shape[0]; first += rows)
    use(numbers(first * width, Math.min(first + rows, weight.shape[0]) * width), first);
}

const memoryReader = (all: Float32Array) => (from: number, to: number) => all.subarray(from, to);

/** The numbers are valid until the next are read. */
function bandReader(stored: FileRange, most: number): (from: number, to: number) => Float32Array {
  const bytes = bytesPerElement(stored.dtype);
  const band = new Uint8Array(most * bytes);
  return (from, to) => {
    const part = band.subarray(0, (to - from) * bytes);
    stored.readInto(part, from * bytes);
    return toFloat32(fromBytes(part, [to - from], stored.dtype)).data;
  };
}
