import { concatBytes, crc32 } from './bytes.js';

const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const headerEnd = signature.length + 25; // IHDR comes first and has a fixed length

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const isPng = (bytes: Uint8Array): boolean => signature.every((byte, i) => bytes[i] === byte);

function textChunk(key: string, value: string): Uint8Array {
  if (!/^[\x20-\x7e]{1,79}$/.test(key)) throw new RangeError(`PNG text: key '${key}' is not 1 to 79 ASCII characters`);
  // An iTXt chunk: key, no compression, no language, no translated key, then UTF-8.
  const body = new TextEncoder().encode(`iTXt${key}\0\0\0\0\0${value}`);
  const chunk = new Uint8Array(body.length + 8);
  view(chunk).setUint32(0, body.length - 4);
  chunk.set(body, 4);
  view(chunk).setUint32(body.length + 4, crc32(body));
  return chunk;
}

/** Adds text to a PNG file: how a picture was made travels with it. Keys are ASCII, values any text. */
export function addPngText(png: Uint8Array, text: Readonly<Record<string, string>>): Uint8Array {
  if (!isPng(png)) throw new Error('PNG text: not a PNG file');
  const chunks = Object.entries(text).map(([key, value]) => textChunk(key, value));
  return concatBytes([png.subarray(0, headerEnd), ...chunks, png.subarray(headerEnd)]);
}

/** The text that {@link addPngText} put into a PNG file. */
export function readPngText(png: Uint8Array): Record<string, string> {
  if (!isPng(png)) throw new Error('PNG text: not a PNG file');
  const text: [string, string][] = [];
  for (let at = signature.length; at + 12 <= png.length; ) {
    const length = view(png).getUint32(at);
    const [type, body] = [png.subarray(at + 4, at + 8), png.subarray(at + 8, at + 8 + length)];
    if (new TextDecoder().decode(type) === 'iTXt') {
      const [, key, value] = /^(.*?)\0\0\0.*?\0.*?\0(.*)$/s.exec(new TextDecoder().decode(body)) ?? [];
      if (key !== undefined) text.push([key, value]);
    }
    at += 12 + length;
  }
  return Object.fromEntries(text);
}
