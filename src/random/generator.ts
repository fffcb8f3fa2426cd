import { type NdArray, ndarray, type Shape, sizeOf, zeros } from '../array/index.js';
import { Mt19937 } from './mt19937.js';
import { normal16 } from './normal16.js';

const stateBytes = 5056;
/** Above this length PyTorch shuffles with 64-bit draws. */
const longPermutation = Math.floor((2 ** 32 - 1) / 20);

const count = (what: string, value: number, least = 0): number => {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new RangeError(`Generator: ${what} ${value}, expected an integer of at least ${least}`);
};

/**
 * PyTorch's CPU random generator: the same seed and the same calls give the same numbers as `torch.manual_seed` and
 * `torch.Generator` on x86-64. Uniform numbers, integers and permutations agree bit for bit; so do normal float32
 * numbers with PyTorch's AVX2 build, and to 2e-6 with its others (which differ among themselves by as much).
 */
export class Generator {
  #engine: Mt19937;
  #initialSeed: bigint;
  /** Box-Muller gives two normal numbers at a time; fewer than 16 are drawn singly, and the second one waits here. */
  #spareNormal: number | undefined;

  /** @param seed any integer; the stream depends on its low 32 bits only, as in PyTorch. */
  constructor(seed: number | bigint = 0) {
    if (typeof seed === 'number' && !Number.isSafeInteger(seed))
      throw new RangeError(`Generator: seed ${seed}, expected an integer`);
    this.#initialSeed = BigInt.asUintN(64, BigInt(seed));
    this.#engine = new Mt19937(Number(BigInt.asUintN(32, this.#initialSeed)));
  }

  get initialSeed(): bigint {
    return this.#initialSeed;
  }

  /** 32 random bits, 0..2^32-1. */
  random(): number {
    return this.#engine.draw();
  }

  /** 64 random bits; the first draw gives the high half. */
  random64(): bigint {
    const high = this.#engine.draw();
    return (BigInt(high) << 32n) | BigInt(this.#engine.draw());
  }

  /** A double of [0, 1) with 53 random bits. */
  uniform64(): number {
    const high = this.#engine.draw() & 0x1fffff;
    return (high * 2 ** 32 + this.#engine.draw()) * 2 ** -53;
  }

  /** Fills with uniform numbers of [low, high), like `tensor.uniform_(low, high)`. */
  fillUniform<T extends Float32Array | Float64Array>(out: T, low = 0, high = 1): T {
    if (!(low <= high)) throw new RangeError(`Generator: uniform bounds ${low}..${high}, expected low <= high`);
    if (out instanceof Float64Array) {
      for (let i = 0; i < out.length; i++) out[i] = this.uniform64() * (high - low) + low;
      return out;
    }
    const engine = this.#engine;
    const from = Math.fround(low);
    const range = Math.fround(Math.fround(high) - from) * 2 ** -24;
    // Storing rounds once, as PyTorch's fused multiply-add does: in double precision the product is exact.
    for (let i = 0; i < out.length; i++) out[i] = (engine.draw() & 0xffffff) * range + from;
    return out;
  }

  /** Fills with normal numbers, like `tensor.normal_(mean, std)`: 16 or more are drawn otherwise than fewer. */
  fillNormal<T extends Float32Array | Float64Array>(out: T, mean = 0, std = 1): T {
    if (!(std >= 0)) throw new RangeError(`Generator: standard deviation ${std}, expected at least 0`);
    if (out.length < 16) {
      for (let i = 0; i < out.length; i++) out[i] = this.#singleNormal() * std + mean;
      return out;
    }
    const transform: (start: number) => void =
      out instanceof Float32Array
        ? (start) => normal16(out, start, Math.fround(mean), Math.fround(std))
        : (start) => normal16Double(out, start, mean, std);
    this.fillUniform(out);
    for (let start = 0; start + 16 <= out.length; start += 16) transform(start);
    if (out.length % 16 !== 0) {
      // The last 16 are drawn anew, over whatever the whole blocks left there.
      this.fillUniform(out.subarray(out.length - 16));
      transform(out.length - 16);
    }
    return out;
  }

  #singleNormal(): number {
    const spare = this.#spareNormal;
    if (spare !== undefined) {
      this.#spareNormal = undefined;
      return spare;
    }
    const angle = 2 * Math.PI * this.uniform64();
    const radius = Math.sqrt(-2 * Math.log1p(-this.uniform64()));
    this.#spareNormal = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** Uniform numbers of [0, 1), like `torch.rand`. */
  rand<D extends 'float32' | 'float64' = 'float32'>(shape: Shape, dtype: D = 'float32' as D): NdArray<D> {
    const out = zeros(shape, dtype);
    this.fillUniform(out.data as Float32Array | Float64Array);
    return out;
  }

  /** Standard normal numbers, like `torch.randn`. */
  randn<D extends 'float32' | 'float64' = 'float32'>(shape: Shape, dtype: D = 'float32' as D): NdArray<D> {
    const out = zeros(shape, dtype);
    this.fillNormal(out.data as Float32Array | Float64Array);
    return out;
  }

  /** Uniform float32 numbers of [low, high). */
  uniform(shape: Shape, low: number, high: number): NdArray<'float32'> {
    return ndarray(this.fillUniform(new Float32Array(sizeOf(shape)), low, high), shape);
  }

  /** Normal float32 numbers. */
  normal(shape: Shape, mean: number, std: number): NdArray<'float32'> {
    return ndarray(this.fillNormal(new Float32Array(sizeOf(shape)), mean, std), shape);
  }

  /** Integers of low..high-1, like `torch.randint(low, high, shape)`; both bounds safe integers. */
  randint(low: number, high: number, shape: Shape): NdArray<'int64'> {
    const range = high - low;
    if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || range < 1 || !Number.isSafeInteger(range))
      throw new RangeError(`Generator: randint bounds ${low}..${high}, expected integers with low < high`);
    const draw =
      range >= 2 ** 32
        ? () => BigInt(low) + (this.random64() % BigInt(range))
        : () => BigInt(low + (this.#engine.draw() % range));
    const out = zeros(shape, 'int64');
    for (let i = 0; i < out.data.length; i++) out.data[i] = draw();
    return out;
  }

  /** A permutation of 0..n-1, like `torch.randperm(n)`; n below 2^31. */
  randperm(n: number): Int32Array {
    if (count('permutation length', n) >= 2 ** 31) throw new RangeError(`Generator: randperm(${n}), expected n < 2^31`);
    const out = new Int32Array(n);
    if (n >= longPermutation) return this.#longPermutation(out);
    for (let i = 0; i < n; i++) out[i] = i;
    for (let i = 0; i < n - 1; i++) {
      const other = i + (this.#engine.draw() % (n - i));
      const value = out[i];
      out[i] = out[other];
      out[other] = value;
    }
    return out;
  }

  /** Fisher and Yates inside out, each place from 64 bits. */
  #longPermutation(out: Int32Array): Int32Array {
    for (let i = 0; i < out.length; i++) {
      const m = i + 1;
      let place = this.#engine.draw() % m;
      const low = this.#engine.draw();
      place = (place * 65536 + (low >>> 16)) % m; // in two halves, so that every product stays exact
      place = (place * 65536 + (low & 0xffff)) % m;
      out[i] = out[place];
      out[place] = i;
    }
    return out;
  }

  /** 1 with probability p, else 0, like `torch.bernoulli(torch.full(shape, p))`. */
  bernoulli(p: number, shape: Shape): NdArray<'float32'> {
    if (!(p >= 0 && p <= 1)) throw new RangeError(`Generator: probability ${p}, expected 0..1`);
    const out = this.rand(shape);
    const threshold = Math.fround(p);
    for (let i = 0; i < out.data.length; i++) out.data[i] = out.data[i] < threshold ? 1 : 0;
    return out;
  }

  /** Exponential numbers of the given rate, like `tensor.exponential_(rate)`. */
  exponential(shape: Shape, rate = 1): NdArray<'float32'> {
    if (!(rate > 0)) throw new RangeError(`Generator: rate ${rate}, expected above 0`);
    const out = zeros(shape);
    for (let i = 0; i < out.data.length; i++) out.data[i] = (-1 / rate) * Math.log1p(-this.uniform64());
    return out;
  }

  /**
   * Indices drawn in proportion to weights (which need not sum to 1), like `torch.multinomial(weights, n, replacement)`.
   * @throws RangeError for negative or all-zero weights, or more draws than positive weights without replacement.
   */
  multinomial(weights: ArrayLike<number>, n: number, { replacement = false } = {}): Int32Array {
    const w = Float32Array.from(weights);
    const positive = w.filter((x) => x > 0).length;
    if (positive === 0 || !w.every((x) => x >= 0 && x < Number.POSITIVE_INFINITY))
      throw new RangeError('Generator: multinomial weights must be finite, none below 0 and one above it');
    if (!replacement && count('number of draws', n) > positive)
      throw new RangeError(`Generator: ${n} draws without replacement from ${positive} positive weights`);
    if (!replacement) {
      // The n winners of an exponential race: dividing by exponential numbers is the Gumbel trick.
      const { data } = this.exponential([w.length]);
      const score = w.map((x, i) => x / data[i]);
      return Int32Array.from(w.keys())
        .sort((a, b) => score[b] - score[a])
        .slice(0, n);
    }
    const cumulative = new Float32Array(w.length);
    w.reduce((sum, x, i) => {
      cumulative[i] = sum + x;
      return cumulative[i];
    }, 0);
    const total = cumulative[w.length - 1];
    for (let i = 0; i < w.length; i++) cumulative[i] /= total;
    return new Int32Array(count('number of draws', n)).map(() => {
      const u = this.uniform64();
      let [left, right] = [0, w.length];
      while (left < right) {
        const middle = (left + right) >> 1;
        if (cumulative[middle] < u) left = middle + 1;
        else right = middle;
      }
      return left;
    });
  }

  /** A new generator seeded from this one, for a stream of its own. */
  fork(): Generator {
    return new Generator(this.random());
  }

  /**
   * The whole state, in the bytes of `torch.get_rng_state()`: `fromState` continues the stream bit for bit, and so does
   * `torch.set_rng_state`.
   */
  state(): Uint8Array {
    const bytes = new Uint8Array(stateBytes);
    const view = new DataView(bytes.buffer);
    const { words, next } = this.#engine;
    view.setBigUint64(0, this.#initialSeed, true);
    view.setInt32(8, words.length + 1 - next, true);
    view.setInt32(12, 1, true);
    view.setBigUint64(16, BigInt(next), true);
    for (let i = 0; i < words.length; i++) view.setUint32(24 + 8 * i, words[i], true);
    view.setFloat64(5024, this.#spareNormal ?? 0, true);
    view.setInt32(5040, this.#spareNormal === undefined ? 0 : 1, true);
    return bytes;
  }

  /**
   * A generator that continues from `state()`, or from the bytes of `torch.get_rng_state()`.
   * @throws RangeError when the bytes are no such state.
   */
  static fromState(bytes: Uint8Array): Generator {
    const generator = new Generator();
    generator.setState(bytes);
    return generator;
  }

  /** Makes this generator continue from a state. @throws RangeError when the bytes are no such state; it goes on as before. */
  setState(bytes: Uint8Array): void {
    if (bytes.byteLength !== stateBytes)
      throw new RangeError(`Generator: a state of ${bytes.byteLength} bytes, expected ${stateBytes}`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const engine = this.#engine;
    const left = view.getInt32(8, true);
    if (view.getInt32(12, true) !== 1 || left < 1 || left > engine.words.length)
      throw new RangeError('Generator: the bytes are not the state of a seeded mt19937');
    this.#initialSeed = view.getBigUint64(0, true);
    for (let i = 0; i < engine.words.length; i++) engine.words[i] = view.getUint32(24 + 8 * i, true);
    engine.next = engine.words.length + 1 - left;
    this.#spareNormal = view.getInt32(5040, true) === 0 ? undefined : view.getFloat64(5024, true);
  }
}

/** The block of `normal16` in double precision, as PyTorch draws float64. */
function normal16Double(data: Float64Array, start: number, mean: number, std: number): void {
  for (let i = start; i < start + 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - data[i]));
    const angle = 2 * Math.PI * data[i + 8];
    data[i] = radius * Math.cos(angle) * std + mean;
    data[i + 8] = radius * Math.sin(angle) * std + mean;
  }
}
