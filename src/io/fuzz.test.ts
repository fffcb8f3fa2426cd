import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { parseIdx } from './idx.js';
import { parseNpz, serializeNpz } from './npz.js';
import { parseSafetensors, serializeSafetensors } from './safetensors.js';

const arrays = {
  weight: ndarray([1, 2, 3, 4, 5, 6], [2, 3]),
  bias: ndarray([7n, 8n].map(Number), [2], 'int64'),
  flags: ndarray([1, 0, 1], [3], 'bool'),
};
const idx = Uint8Array.of(0, 0, 11, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
const interesting = [0, 1, 0x22, 0x30, 0x39, 0x5b, 0x5d, 0x7b, 0x7d, 0x7f, 0x80, 0xff];

/** Cuts, flips bits, writes telling bytes, copies a part over another: one to four times. */
function mutate(bytes: Uint8Array, rng: Generator): Uint8Array {
  const below = (n: number): number => rng.random() % Math.max(1, n);
  let out = bytes.slice();
  for (let times = 1 + below(4); times > 0; times--) {
    const at = below(out.length);
    const kind = below(4);
    if (kind === 0) out = out.slice(0, at);
    else if (kind === 1) out[at] ^= 1 << below(8);
    else if (kind === 2) out[at] = interesting[below(interesting.length)];
    else out.copyWithin(at, below(out.length), below(out.length));
  }
  return out;
}

describe.each<[string, Uint8Array, (bytes: Uint8Array) => Iterable<NdArray>, RegExp]>([
  [
    'safetensors',
    serializeSafetensors(arrays, { a: 'b' }),
    (b) => parseSafetensors(b).tensors.values(),
    /^safetensors: /,
  ],
  ['npz', serializeNpz(arrays), (b) => parseNpz(b).values(), /^(npz|zip): /],
  ['compressed npz', serializeNpz(arrays, { compress: true }), (b) => parseNpz(b).values(), /^(npz|zip): /],
  ['idx', idx, (b) => [parseIdx(b)], /^idx: /],
])('%s, damaged', (_, file, parse, message) => {
  it('gives arrays no larger than the file could hold, or a clear error', () => {
    const rng = new Generator(1);
    let rejected = 0;
    for (let round = 0; round < 3000; round++) {
      const bytes = mutate(file, rng);
      try {
        let total = 0;
        for (const { data } of parse(bytes)) total += data.byteLength;
        expect(total).toBeLessThanOrEqual(bytes.length * 1032);
      } catch (error) {
        expect((error as Error).message).toMatch(message);
        rejected++;
      }
    }
    expect(rejected).toBeGreaterThan(1000);
  });

  it('is rejected wherever it is cut short', () => {
    for (let length = 0; length < file.length; length++) expect(() => parse(file.subarray(0, length))).toThrow(message);
  });
});
