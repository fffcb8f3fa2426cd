import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { parseSafetensors, parseSafetensorsHeader, serializeSafetensors } from './safetensors.js';

/** A file with any header, true or lying. */
function file(header: unknown, dataBytes = 0, claimed?: bigint): Uint8Array {
  const text = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}
const f32 = (shape: unknown, ...data_offsets: unknown[]) => ({ dtype: 'F32', shape, data_offsets });

describe('safetensors', () => {
  it('reads back every dtype it writes, as views of the file', () => {
    const arrays = {
      f32: ndarray([1, -2.5, 3, 4], [2, 2]),
      f64: ndarray([Math.PI], [1], 'float64'),
      f16: ndarray(new Uint16Array([0x3c00, 0xc000]), [2], 'float16'),
      bf16: ndarray(new Uint16Array([0x3f80]), [1, 1], 'bfloat16'),
      i64: ndarray(new BigInt64Array([-(2n ** 63n), 2n ** 63n - 1n]), [2], 'int64'),
      i32: ndarray([-7], [1], 'int32'),
      i16: ndarray([-300, 300], [2], 'int16'),
      i8: ndarray([-1, 0, 1], [3], 'int8'),
      u8: ndarray([255], [], 'uint8'),
      bool: ndarray([1, 0, 1], [3], 'bool'),
      empty: ndarray([], [0, 3]),
    };
    const bytes = serializeSafetensors(arrays, { format: 'pt', note: 'é' });
    const { tensors, metadata } = parseSafetensors(bytes);
    expect(Object.fromEntries(tensors)).toEqual(arrays);
    expect(metadata).toEqual({ format: 'pt', note: 'é' });
    for (const array of tensors.values()) expect(array.data.buffer).toBe(bytes.buffer);
    expect(serializeSafetensors(tensors, metadata)).toEqual(bytes);
  });

  it('writes what the official writer writes', () => {
    // safetensors.numpy.save({'b': zeros(1, f32), 'a': ones(1, u8), '1': ones(1, i64)}, {'format': 'pt'})
    const bytes = serializeSafetensors(
      { b: ndarray([0]), a: ndarray([1], [1], 'uint8'), 1: ndarray([1], [1], 'int64') },
      { format: 'pt' },
    );
    const json =
      '{"__metadata__":{"format":"pt"},"1":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},' +
      '"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"a":{"dtype":"U8","shape":[1],"data_offsets":[12,13]}}';
    const length = Math.ceil(json.length / 8) * 8;
    expect(new TextDecoder().decode(bytes.subarray(8, 8 + length))).toBe(json.padEnd(length));
    expect([...bytes.subarray(8 + length)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  });

  it('copies what is not aligned', () => {
    const bytes = file({ x: f32([1], 0, 4) }, 4);
    const shifted = new Uint8Array(bytes.length + 1);
    for (const start of [0, 1]) {
      shifted.set(bytes, start);
      const { tensors } = parseSafetensors(shifted.subarray(start, start + bytes.length));
      expect(tensors.get('x')).toEqual(ndarray([0]));
    }
  });

  it('reads the header of a file that is not in memory', () => {
    const bytes = serializeSafetensors({ x: ndarray([1, 2]), y: ndarray([1], [1], 'int64') });
    const begin = bytes.length - 16;
    const header = parseSafetensorsHeader(bytes.slice(0, begin), bytes.length);
    expect(header.dataBegin).toBe(begin);
    expect([...header.tensors]).toEqual([
      ['y', { dtype: 'int64', shape: [1], begin, end: begin + 8 }],
      ['x', { dtype: 'float32', shape: [2], begin: begin + 8, end: begin + 16 }],
    ]);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['no bytes', new Uint8Array(0), /at least 8 bytes, this one 0/],
    ['a huge header', file({}, 0, 2n ** 63n), /claims 9223372036854775808 bytes/],
    ['a header longer than the file', file({}, 0, 99n), /claims 99 bytes, the file has 2/],
    ['no JSON', file('{"x"'), /not UTF-8 JSON/],
    ['no UTF-8', Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0xff), /not UTF-8 JSON/],
    ['a list', file([]), /not a JSON object/],
    ['a number as entry', file({ x: 3 }), /entry of 'x' is not an object/],
    [
      'an unknown dtype',
      file({ x: { ...f32([1], 0, 4), dtype: 'F12' } }, 4),
      /'x' has dtype "F12", expected one of I64/,
    ],
    ['a prototype as dtype', file({ x: { ...f32([1], 0, 4), dtype: 'constructor' } }, 4), /has dtype "constructor"/],
    ['no shape', file({ x: { dtype: 'F32', data_offsets: [0, 4] } }, 4), /shape of 'x'/],
    ['a negative shape', file({ x: f32([-1], 0, 4) }, 4), /shape of 'x'/],
    ['a fractional shape', file({ x: f32([0.5, 2], 0, 4) }, 4), /shape of 'x'/],
    ['an overflowing shape', file({ x: f32([2 ** 40, 2 ** 40, 2 ** 40], 0, 4) }, 4), /takes .* its offsets span 4/],
    ['a shape with too few bytes', file({ x: f32([2], 0, 4) }, 4), /\[2\] takes 8 bytes, its offsets span 4/],
    ['one offset', file({ x: f32([1], 0) }, 4), /data_offsets of 'x'/],
    ['reversed offsets', file({ x: f32([1], 4, 0) }, 4), /lies at bytes/],
    ['offsets past the end', file({ x: f32([2], 0, 8) }, 4), /the file has .*cut short/],
    ['an overlap', file({ x: f32([2], 0, 8), y: f32([1], 4, 8) }, 8), /'y' begins .*overlap/],
    ['a hole', file({ x: f32([1], 4, 8) }, 8), /'x' begins .*hole/],
    ['bytes left over', file({ x: f32([1], 0, 4) }, 8), /the tensors end at byte/],
    ['metadata of numbers', file({ __metadata__: { a: 1 } }), /__metadata__ is not a map of strings/],
    [
      'a name twice',
      file(
        '{"\\u0078":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x" : {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        4,
      ),
      /'x' appears twice/,
    ],
  ])('rejects %s', (_, bytes, message) => {
    expect(() => parseSafetensors(bytes)).toThrow(message);
  });

  it('rejects what the format cannot hold', () => {
    expect(() => serializeSafetensors({ __metadata__: ndarray([1]) })).toThrow(/cannot be named/);
    expect(() => serializeSafetensors({}, { a: 1 as unknown as string })).toThrow(/metadata 'a' must be a string/);
  });
});
