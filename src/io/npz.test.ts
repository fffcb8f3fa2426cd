import { zipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { parseIdx } from './idx.js';
import { parseNpy, serializeNpy } from './npy.js';
import { parseNpz, serializeNpz } from './npz.js';

const decode = (base64: string): Uint8Array => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

// numpy.savez_compressed(file, a=arange(6, '<f4').reshape(2, 3), t=asfortranarray(arange(24, 'i2').reshape(2, 3, 4)),
//   big=array([1.5, -2], '>f8'), s=array(True), h=array([0.5], 'f2'))
const fromNumpy = decode(
  'UEsDBC0AAAAIAAAAIQBP6QAq//////////8FABQAYS5ucHkBABAAmAAAAAAAAABVAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TZqKuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GkY6CsaaOgq1CmQDLgYwaLAHEg5ABMQNQLzAAQBQSwMELQAAAAgAAAAhAG8Ub47//////////wUAFAB0Lm5weQEAEACwAAAAAAAAAHgAAAAAAAAAm+wX6hsQychQxlCtnpJanFykbqWgbpNppK6joJ6WX1RSlJgXn1+UkgoSDykqTQUKF2ckFqQCuRpGOgrGOgommjoKtQpkAi4GBh4GFgYBBg4GEQZGBl4GVgZBBk4GUQYmBj4GNgYhBi4GMQZmBn4GdgZhBm4GcQYAUEsDBC0AAAAIAAAAIQBXA5Uf//////////8HABQAYmlnLm5weQEAEACQAAAAAAAAAE0AAAAAAAAAm+wX6hsQychQxlCtnpJanFykbqWgbpdmoa6joJ6WX1RSlJgXn1+UkgoSd0vMKU4FihdnJBakAvkaRjqaOgq1ChQALvsfDGBwAEIxAABQSwMELQAAAAgAAAAhAIIt+NP//////////wUAFABzLm5weQEAEACBAAAAAAAAAEMAAAAAAAAAm+wX6hsQychQxlCtnpJanFykbqWgXpNkqK6joJ6WX1RSlJgXn1+UkgoSd0vMKU4FihdnJBakAvkamjoKtQoUAS5GAFBLAwQtAAAACAAAACEA9rKsnP//////////BQAUAGgubnB5AQAQAIIAAAAAAAAARgAAAAAAAACb7BfqGxDJyFDGUK2eklqcXKRupaBuk2akrqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RqGOpo6CrUKFAAuBgsAUEsBAi0DLQAAAAgAAAAhAE/pACpVAAAAmAAAAAUAAAAAAAAAAAAAAIABAAAAAGEubnB5UEsBAi0DLQAAAAgAAAAhAG8Ub454AAAAsAAAAAUAAAAAAAAAAAAAAIABjAAAAHQubnB5UEsBAi0DLQAAAAgAAAAhAFcDlR9NAAAAkAAAAAcAAAAAAAAAAAAAAIABOwEAAGJpZy5ucHlQSwECLQMtAAAACAAAACEAgi3400MAAACBAAAABQAAAAAAAAAAAAAAgAHBAQAAcy5ucHlQSwECLQMtAAAACAAAACEA9rKsnEYAAACCAAAABQAAAAAAAAAAAAAAgAE7AgAAaC5ucHlQSwUGAAAAAAUABQABAQAAuAIAAAAA',
);
// numpy.save(file, arange(3, dtype='u1'))
const npyFromNumpy = decode(
  'k05VTVBZAQB2AHsnZGVzY3InOiAnfHUxJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDMsKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAQI=',
);
const range = Array.from({ length: 24 }, (_, i) => i);

/** A .npy file with any header. */
function npy(header: string, dataBytes = 0): Uint8Array {
  const text = `\u0093NUMPY\u0001\0${String.fromCharCode(header.length & 255, header.length >> 8)}${header}`;
  return Uint8Array.from(text + '\0'.repeat(dataBytes), (letter) => letter.charCodeAt(0));
}
const header = (descr: string, shape: string, order = 'False'): string =>
  `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}, }`;

describe('npz', () => {
  it("reads NumPy's compressed archives, of either byte and memory order", () => {
    expect(Object.fromEntries(parseNpz(fromNumpy))).toEqual({
      a: ndarray([0, 1, 2, 3, 4, 5], [2, 3]),
      t: ndarray(range, [2, 3, 4], 'int16'),
      big: ndarray([1.5, -2], [2], 'float64'),
      s: ndarray([1], [], 'bool'),
      h: ndarray(new Uint16Array([0x3800]), [1], 'float16'),
    });
  });

  it.each([false, true])('reads back what it writes (compressed: %s)', (compress) => {
    const arrays = { x: ndarray([1, 2, 3, 4], [2, 2]), 'a/b': ndarray([5], [1], 'int64'), none: ndarray([], [0]) };
    const bytes = serializeNpz(arrays, { compress });
    expect(Object.fromEntries(parseNpz(bytes))).toEqual(arrays);
    expect(serializeNpz(arrays, { compress })).toEqual(bytes);
  });

  it("writes NumPy's very bytes", () => {
    expect(serializeNpy(ndarray([0, 1, 2], [3], 'uint8'))).toEqual(npyFromNumpy);
    expect(() => serializeNpy(ndarray(new Uint16Array(1), [1], 'bfloat16'))).toThrow(/NumPy has no bfloat16/);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['another file', new TextEncoder().encode('hello, this is no array'), /not a .npy file/],
    ['a pickle', npy(header("'|O'", '(1,)'), 8), /dtype '\|O' is not supported/],
    ['a record', npy(header("[('x', '<f4')]", '(1,)'), 4), /no readable 'descr'/],
    ['complex numbers', npy(header("'<c8'", '(1,)'), 8), /dtype '<c8'/],
    ['no shape', npy("{'descr': '<f4', 'fortran_order': False}", 4), /no readable 'shape'/],
    ['a negative shape', npy(header("'<f4'", '(-1,)'), 4), /no readable 'shape'/],
    ['too few bytes', npy(header("'<f4'", '(2,)'), 4), /float32 \[2\] takes 8 bytes, the file has 4/],
    ['a huge shape', npy(header("'<f4'", '(4611686018427387904, 4)'), 4), /too large/],
    ['a header past the end', npy(header("'<f4'", '(1,)')).subarray(0, 40), /cut short/],
  ])('rejects %s', (_, bytes, message) => {
    expect(() => parseNpy(bytes)).toThrow(message);
  });

  it('rejects archives that are damaged or hold something else', () => {
    const damaged = fromNumpy.slice();
    damaged[80] ^= 4;
    expect(() => parseNpz(damaged)).toThrow(/'a.npy' is damaged/);
    expect(() => parseNpz(fromNumpy.subarray(0, 900))).toThrow(/no end record/);
    expect(() => parseNpz(zipSync({ 'x.txt': new Uint8Array(3) }))).toThrow(/'x.txt' is not a .npy file/);
    expect(() => parseNpz(zipSync({ 'x.npy': new Uint8Array(3) }))).toThrow(/'x.npy': npy: not a .npy file/);
    const lying = fromNumpy.slice();
    new DataView(lying.buffer).setUint32(0x2b8 + 24, 0xfffffff0, true); // the unpacked length in the directory
    expect(() => parseNpz(lying)).toThrow(/'a.npy' claims 4294967280 bytes/);
  });
});

describe('idx', () => {
  it('reads bytes and wider numbers', () => {
    expect(parseIdx(Uint8Array.of(0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 255))).toEqual(
      ndarray([7, 255], [1, 2], 'uint8'),
    );
    expect(parseIdx(Uint8Array.of(0, 0, 11, 1, 0, 0, 0, 1, 1, 2))).toEqual(ndarray([258], [1], 'int16'));
  });

  it.each<[number[], RegExp]>([
    [[], /not an IDX file/],
    [[0, 0, 7, 1, 0, 0, 0, 0], /not an IDX file \(it begins with 0 0 7 1\)/],
    [[0, 0, 8, 3, 0, 0, 0, 1], /3 axes takes 16 bytes, the file has 8/],
    [[0, 0, 8, 1, 0, 0, 0, 4, 1], /\[4\] takes 4 bytes, the file has 1/],
    [[0, 0, 8, 2, 255, 255, 255, 255, 255, 255, 255, 255], /takes \d+ bytes, the file has 0/],
  ])('rejects %j', (bytes, message) => {
    expect(() => parseIdx(Uint8Array.from(bytes))).toThrow(message);
  });
});
