import { inflateSync } from 'fflate';
import { crc32 } from './bytes.js';

const signatures = { local: 0x04034b50, central: 0x02014b50, end: 0x06054b50 };
/** The best that deflate can do: 258 bytes in two bits. */
const maxDeflateRatio = 1032;

const fail = (what: string): never => {
  throw new Error(`zip: ${what}`);
};

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly packedBytes: number;
  readonly bytes: number;
  readonly localOffset: number;
}

/** Reads records with the bounds checked, so that a lying offset is an error and never a read elsewhere. */
class Reader {
  private readonly view: DataView;
  constructor(readonly file: Uint8Array) {
    this.view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  }
  span(offset: number, length: number, what: string): number {
    if (offset < 0 || offset + length > this.file.length)
      fail(`${what} lies at bytes ${offset}..${offset + length}, the file has ${this.file.length} (cut short?)`);
    return offset;
  }
  u16 = (offset: number): number => this.view.getUint16(offset, true);
  u32 = (offset: number): number => this.view.getUint32(offset, true);
}

function findEnd(reader: Reader): number {
  const { length } = reader.file;
  for (let at = length - 22; at >= 0 && at >= length - 22 - 0xffff; at--)
    if (reader.u32(at) === signatures.end && at + 22 + reader.u16(at + 20) === length) return at;
  return fail('no end record (not a zip file, or cut short)');
}

function* entries(reader: Reader): Generator<Entry> {
  const end = findEnd(reader);
  const count = reader.u16(end + 10);
  let at = reader.u32(end + 16);
  if (count === 0xffff || at === 0xffffffff) fail('files of more than 4 GiB or 65,534 entries are not supported');
  for (let i = 0; i < count; i++) {
    reader.span(at, 46, `entry ${i} of the directory`);
    if (reader.u32(at) !== signatures.central) fail(`entry ${i} of the directory is not where it should be`);
    const nameBytes = reader.u16(at + 28);
    reader.span(at + 46, nameBytes, `the name of entry ${i}`);
    const name = new TextDecoder().decode(reader.file.subarray(at + 46, at + 46 + nameBytes));
    if (reader.u16(at + 8) & 1) fail(`'${name}' is encrypted`);
    yield {
      name,
      method: reader.u16(at + 10),
      crc: reader.u32(at + 16),
      packedBytes: reader.u32(at + 20),
      bytes: reader.u32(at + 24),
      localOffset: reader.u32(at + 42),
    };
    at += 46 + nameBytes + reader.u16(at + 30) + reader.u16(at + 32);
  }
}

function unpack(reader: Reader, { name, method, crc, packedBytes, bytes, localOffset }: Entry): Uint8Array {
  reader.span(localOffset, 30, `'${name}'`);
  if (reader.u32(localOffset) !== signatures.local) fail(`'${name}' is not where the directory says`);
  const begin = localOffset + 30 + reader.u16(localOffset + 26) + reader.u16(localOffset + 28);
  reader.span(begin, packedBytes, `'${name}'`);
  const packed = reader.file.subarray(begin, begin + packedBytes);
  let content = packed;
  if (method === 8) {
    if (bytes > packedBytes * maxDeflateRatio) fail(`'${name}' claims ${bytes} bytes, too many for ${packedBytes}`);
    try {
      content = inflateSync(packed, { out: new Uint8Array(bytes) });
    } catch (cause) {
      throw new Error(`zip: '${name}' is damaged`, { cause });
    }
  } else if (method !== 0) fail(`'${name}' is compressed with method ${method}, expected 0 (stored) or 8 (deflated)`);
  if (content.length !== bytes) fail(`'${name}' has ${content.length} bytes, the directory says ${bytes}`);
  if (crc32(content) !== crc) fail(`'${name}' is damaged (checksum)`);
  return content;
}

/**
 * The files in a zip archive, by name; stored files are views of `file`.
 * @throws Error when the archive is damaged (checksums are compared), encrypted, or larger than 4 GiB.
 */
export function readZip(file: Uint8Array): Map<string, Uint8Array> {
  const reader = new Reader(file);
  const files = new Map<string, Uint8Array>();
  let packedBytes = 0;
  for (const entry of entries(reader)) {
    packedBytes += entry.packedBytes;
    if (packedBytes > file.length) fail(`'${entry.name}' overlaps another file`); // else a small file could unpack for ever
    if (files.has(entry.name)) fail(`the name '${entry.name}' appears twice`);
    files.set(entry.name, unpack(reader, entry));
  }
  return files;
}
