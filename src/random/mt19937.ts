const size = 624;
const shift = 397;

/**
 * The Mersenne Twister of Matsumoto and Nishimura (1998), as PyTorch's CPU generator uses it.
 * `words` and `next` are the whole state: `next` counts the words already drawn of the present block.
 */
export class Mt19937 {
  readonly words = new Uint32Array(size);
  next = size;

  /** @param seed only its low 32 bits count, as in PyTorch. */
  constructor(seed: number) {
    const { words } = this;
    words[0] = seed;
    for (let i = 1; i < size; i++) {
      const previous = words[i - 1] ^ (words[i - 1] >>> 30);
      words[i] = Math.imul(previous, 1812433253) + i;
    }
  }

  /** The next 32 random bits, as a number in 0..2^32-1. */
  draw(): number {
    if (this.next === size) this.#refill();
    let word = this.words[this.next++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  }

  #refill(): void {
    const { words } = this;
    // Three runs instead of indices modulo 624: this is half the cost of a bulk draw.
    for (let i = 0; i < size - shift; i++) words[i] = words[i + shift] ^ twist(words[i], words[i + 1]);
    for (let i = size - shift; i < size - 1; i++) words[i] = words[i + shift - size] ^ twist(words[i], words[i + 1]);
    words[size - 1] = words[shift - 1] ^ twist(words[size - 1], words[0]);
    this.next = 0;
  }
}

function twist(word: number, following: number): number {
  const joined = (word & 0x80000000) | (following & 0x7fffffff);
  return (joined >>> 1) ^ (-(joined & 1) & 0x9908b0df);
}
