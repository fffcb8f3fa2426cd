/**
 * The normalisation that a SentencePiece model was trained with (Kudo & Richardson 2018), as it stores it: a double-array
 * trie of what is replaced, then the replacements, each ended by a zero. Its rules (`nmt_nfkc`) are Unicode's NFKC, with
 * control characters left out and all white space as plain spaces.
 */
export class Charsmap {
  private readonly units: Uint32Array;
  private readonly texts: Uint8Array;

  /** @throws RangeError when the trie is longer than the whole. */
  constructor(blob: Uint8Array) {
    const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
    const bytes = blob.length >= 4 ? view.getUint32(0, true) : 0;
    if (blob.length < 4 || bytes % 4 || 4 + bytes > blob.length)
      throw new RangeError(`charsmap: a trie of ${bytes} bytes in ${blob.length}`);
    this.units = Uint32Array.from({ length: bytes / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.texts = blob.subarray(4 + bytes);
  }

  /** Each longest beginning that the map knows is replaced; other characters stay. */
  normalize(text: string): string {
    const input = new TextEncoder().encode(text);
    const output: number[] = [];
    for (let at = 0; at < input.length; ) {
      const { length, value } = this.longest(input, at);
      if (length > 0) for (let i = value; this.texts[i]; i++) output.push(this.texts[i]);
      const end = at + (length || characterBytes(input[at]));
      if (length === 0) output.push(...input.subarray(at, end));
      at = end;
    }
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(output));
  }

  /** The longest key of the trie that begins at a byte; length 0 when there is none. */
  private longest(input: Uint8Array, from: number): { length: number; value: number } {
    const { units } = this;
    let found = { length: 0, value: 0 };
    let node = units.length > 0 ? offset(units[0]) : 0;
    for (let at = from; at < input.length; at++) {
      node ^= input[at];
      const unit = units[node] ?? 0;
      if ((unit & 0x800000ff) >>> 0 !== input[at]) break; // another label, or a leaf
      node ^= offset(unit);
      if (unit & 0x100) found = { length: at + 1 - from, value: (units[node] ?? 0) & 0x7fffffff };
    }
    return found;
  }
}

const offset = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6);

/** How long a character is in UTF-8, by its first byte. */
const characterBytes = (first: number): number => (first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);
