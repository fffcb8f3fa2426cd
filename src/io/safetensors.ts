import { bytesPerElement, type DType, fromBytes, type NdArray, type Shape, sizeOf, toBytes } from '../array/index.js';
import { concatBytes } from './bytes.js';

/**
 * The safetensors format (huggingface/safetensors): eight bytes of header length, little-endian, a JSON header padded
 * with spaces to a multiple of eight, then the tensors' bytes without holes or overlaps.
 */
const formatNames = {
  int64: 'I64',
  float64: 'F64',
  float32: 'F32',
  int32: 'I32',
  bfloat16: 'BF16',
  float16: 'F16',
  int16: 'I16',
  int8: 'I8',
  uint8: 'U8',
  bool: 'BOOL',
} as const satisfies Record<DType, string>;

const dtypes = new Map<string, DType>(Object.entries(formatNames).map(([dtype, name]) => [name, dtype as DType]));

/** The official reader's bound on the header's length. */
const maxHeaderBytes = 100_000_000;

/** Where one tensor lies; `begin` and `end` count bytes from the start of the file. */
export interface SafetensorsEntry {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** In the order of their bytes. */
  readonly tensors: Map<string, SafetensorsEntry>;
  readonly metadata: Record<string, string>;
  /** Where the tensors' bytes begin. */
  readonly dataBegin: number;
}

export interface Safetensors {
  readonly tensors: Map<string, NdArray>;
  readonly metadata: Record<string, string>;
}

const fail = (what: string): never => {
  throw new Error(`safetensors: ${what}`);
};

const isCount = (x: unknown): x is number => typeof x === 'number' && Number.isSafeInteger(x) && x >= 0;
const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null && !Array.isArray(x);

/**
 * How many bytes the length field and the header take together.
 * @param start at least the first eight bytes of the file.
 * @throws Error when the length cannot be that of a header in a file of `fileBytes` bytes.
 */
export function safetensorsHeaderBytes(start: Uint8Array, fileBytes: number): number {
  if (fileBytes < 8 || start.byteLength < 8) fail(`a file has at least 8 bytes, this one ${fileBytes}`);
  const length = new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true);
  if (length > maxHeaderBytes) fail(`the header claims ${length} bytes, more than the ${maxHeaderBytes} allowed`);
  if (Number(length) > fileBytes - 8)
    fail(`the header claims ${length} bytes, the file has ${fileBytes - 8} after its length field (cut short?)`);
  return 8 + Number(length);
}

/** JSON.parse keeps the last of two equal keys silently, so keys that hold an object are gathered from the text. */
function rejectDuplicates(json: string): void {
  const seen = new Set<string>();
  const opensObject = /\s*:\s*\{/y;
  for (let start = json.indexOf('"'); start >= 0; ) {
    let end = start + 1;
    while (json[end] !== '"') end += json[end] === '\\' ? 2 : 1;
    opensObject.lastIndex = end + 1;
    if (opensObject.test(json)) {
      const name = JSON.parse(json.slice(start, end + 1)) as string;
      if (seen.has(name)) fail(`the name '${name}' appears twice`);
      seen.add(name);
    }
    start = json.indexOf('"', end + 1);
  }
}

function parseEntry(name: string, raw: unknown, dataBegin: number, fileBytes: number): SafetensorsEntry {
  if (!isRecord(raw)) return fail(`the entry of '${name}' is not an object`);
  const { dtype: formatName, shape, data_offsets: offsets } = raw;
  const dtype = dtypes.get(String(formatName));
  if (dtype === undefined)
    return fail(`'${name}' has dtype ${JSON.stringify(formatName)}, expected one of ${[...dtypes.keys()].join(' ')}`);
  if (!Array.isArray(shape) || !shape.every(isCount)) return fail(`the shape of '${name}' is not a list of counts`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    return fail(`data_offsets of '${name}' is not a pair of byte offsets`);
  const [begin, end] = (offsets as [number, number]).map((offset) => offset + dataBegin);
  if (begin > end || end > fileBytes)
    fail(`'${name}' lies at bytes ${begin}..${end}, the file has ${fileBytes} (cut short?)`);
  const bytes = sizeOf(shape) * bytesPerElement(dtype);
  if (bytes !== end - begin)
    fail(`'${name}' of ${formatName} [${shape}] takes ${bytes} bytes, its offsets span ${end - begin}`);
  return { dtype, shape, begin, end };
}

/**
 * Reads the header alone, so that single tensors of a large file can be fetched.
 * @param bytes the file, or its first `safetensorsHeaderBytes` bytes.
 * @param fileBytes the length of the whole file.
 * @throws Error when the header is malformed, or does not describe exactly the file's bytes.
 */
export function parseSafetensorsHeader(bytes: Uint8Array, fileBytes = bytes.byteLength): SafetensorsHeader {
  const dataBegin = safetensorsHeaderBytes(bytes, fileBytes);
  if (bytes.byteLength < dataBegin) fail(`the header takes ${dataBegin} bytes, ${bytes.byteLength} were given`);
  let raw: unknown;
  try {
    const json = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, dataBegin));
    raw = JSON.parse(json);
    rejectDuplicates(json);
  } catch (cause) {
    if (cause instanceof Error && cause.message.startsWith('safetensors:')) throw cause;
    throw new Error('safetensors: the header is not UTF-8 JSON (not a safetensors file?)', { cause });
  }
  if (!isRecord(raw)) return fail('the header is not a JSON object');

  const { __metadata__: rawMetadata = {}, ...rawEntries } = raw;
  if (!isRecord(rawMetadata) || !Object.values(rawMetadata).every((value) => typeof value === 'string'))
    fail('__metadata__ is not a map of strings');

  const entries = Object.entries(rawEntries).map(
    ([name, entry]) => [name, parseEntry(name, entry, dataBegin, fileBytes)] as const,
  );
  entries.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let expected = dataBegin;
  for (const [name, { begin, end }] of entries) {
    if (begin !== expected)
      fail(`'${name}' begins at byte ${begin}, expected ${expected} (${begin < expected ? 'overlap' : 'hole'})`);
    expected = end;
  }
  if (expected !== fileBytes) fail(`the tensors end at byte ${expected}, the file has ${fileBytes}`);
  return { tensors: new Map(entries), metadata: rawMetadata as Record<string, string>, dataBegin };
}

/**
 * Reads a file held in memory. Aligned tensors are views of `bytes`, others copies.
 * @throws Error when anything in the header is wrong; nothing is allocated before it has been checked.
 */
export function parseSafetensors(bytes: Uint8Array): Safetensors {
  const { tensors, metadata } = parseSafetensorsHeader(bytes);
  const arrays = new Map<string, NdArray>();
  for (const [name, { dtype, shape, begin, end }] of tensors)
    arrays.set(name, fromBytes(bytes.subarray(begin, end), shape, dtype));
  return { tensors: arrays, metadata };
}

export type NamedArrays = Readonly<Record<string, NdArray>> | ReadonlyMap<string, NdArray>;

/** Names and arrays of either form. */
export const namedArrays = (arrays: NamedArrays): [string, NdArray][] =>
  arrays instanceof Map ? [...arrays] : Object.entries(arrays);

/**
 * The file as consecutive pieces (the header, then a view of each array), to be written without a second copy.
 * Tensors are ordered as the official writer orders them, widest elements first, then by name, so that all are aligned.
 * @throws Error when a tensor is named `__metadata__` or a metadata value is not a string.
 */
export function safetensorsPieces(tensors: NamedArrays, metadata: Record<string, string> = {}): Iterable<Uint8Array> {
  const sorted = namedArrays(tensors)
    .map(([name, array]) => ({ name, array, width: bytesPerElement(array.dtype) }))
    .sort((a, b) => b.width - a.width || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  for (const [key, value] of Object.entries(metadata))
    if (typeof value !== 'string') fail(`metadata '${key}' must be a string, not ${typeof value}`);

  const header: [string, unknown][] = Object.keys(metadata).length > 0 ? [['__metadata__', metadata]] : [];
  let offset = 0;
  for (const { name, array } of sorted) {
    if (name === '__metadata__') fail("a tensor cannot be named '__metadata__'");
    const end = offset + sizeOf(array.shape) * bytesPerElement(array.dtype);
    header.push([name, { dtype: formatNames[array.dtype], shape: array.shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  // Written entry by entry: an object would move names that look like integers to the front.
  const json = `{${header.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(',')}}`;
  const text = new TextEncoder().encode(json);
  const start = new Uint8Array(8 + Math.ceil(text.byteLength / 8) * 8).fill(0x20);
  new DataView(start.buffer).setBigUint64(0, BigInt(start.byteLength - 8), true);
  start.set(text, 8);
  return (function* () {
    yield start;
    for (const { array } of sorted) yield toBytes(array);
  })();
}

/** The whole file as bytes. See {@link safetensorsPieces}. */
export function serializeSafetensors(tensors: NamedArrays, metadata?: Record<string, string>): Uint8Array {
  return concatBytes([...safetensorsPieces(tensors, metadata)]);
}
