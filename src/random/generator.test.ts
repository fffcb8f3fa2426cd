import { describe, expect, it } from 'vitest';
import { Generator } from './generator.js';
import { Mt19937 } from './mt19937.js';

/** Every bit of a float32 array, in one number. */
const bitsOf = (data: Float32Array): number =>
  new Uint32Array(data.buffer, data.byteOffset, data.length).reduce(
    (sum, word, i) => (sum + Math.imul(word, i + 1)) >>> 0,
    0,
  );

const numbers = (data: BigInt64Array | Int32Array): number[] => Array.from(data as Iterable<number | bigint>, Number);

describe('Mt19937', () => {
  it('gives the numbers of the reference implementation', () => {
    const engine = new Mt19937(5489);
    const words = Array.from({ length: 10_000 }, () => engine.draw());
    expect(words.slice(0, 3)).toEqual([3499211612, 581869302, 3890346734]);
    expect(words.at(-1)).toBe(4123659995); // the C++ standard's own check
  });
});

// Expected values were drawn with PyTorch 1.13 on x86-64 with AVX2.
describe('Generator draws what PyTorch draws', () => {
  it('normal numbers, fewer than 16', () => {
    const expected = [1.5409960746765137, -0.293428897857666, -2.1787893772125244, 0.5684312582015991];
    expect([...new Generator(0).randn([4]).data]).toEqual(expected);
  });

  it('normal numbers, 16 and more, bit for bit', () => {
    expect(bitsOf(new Generator(42).randn([1000]).data)).toBe(1464003514);
    expect(bitsOf(new Generator(42).normal([37], 2, 3).data)).toBe(2772319592);
  });

  it('normal numbers in double precision', () => {
    const rng = new Generator(7);
    const drawn = [
      ...rng.randn([3], 'float64').data,
      ...rng.randn([17], 'float64').data,
      ...rng.rand([1], 'float64').data,
    ];
    const expected = [-0.1467950974849952, 0.7861412987235358, 0.9468216090039564, 1.1213586638784168];
    expected.forEach((x, i) => {
      expect(drawn[i]).toBeCloseTo(x, 14);
    });
    expect(drawn[11]).toBeCloseTo(0.20119992138810813, 14);
    expect(drawn[20]).toBe(0.06110724428982506);
  });

  it('uniform numbers', () => {
    expect([...new Generator(0).rand([3]).data]).toEqual([
      0.49625658988952637, 0.7682217955589294, 0.08847743272781372,
    ]);
    expect(bitsOf(new Generator(42).rand([10, 100]).data)).toBe(1438147368);
    expect(bitsOf(new Generator(42).uniform([1000], -0.3, 0.7).data)).toBe(1858230133);
  });

  it('integers', () => {
    const rng = new Generator(1);
    expect(numbers(rng.randint(-5, 5, [8]).data)).toEqual([0, 4, -1, 3, -2, -2, -4, -4]);
    expect(numbers(rng.randint(0, 2 ** 40, [2]).data)).toEqual([340316410816, 620178591873]);
  });

  it('permutations', () => {
    expect([...new Generator(1).randperm(10)]).toEqual([5, 6, 1, 2, 0, 8, 9, 3, 7, 4]);
    expect([...new Generator(1).randperm(0)]).toEqual([]);
  });

  it('coins, exponential numbers and weighted choices', () => {
    expect([...new Generator(3).bernoulli(0.3, [12]).data]).toEqual([1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    const waits = [0.017351727932691574, 0.1689547896385193, 0.7412153482437134];
    expect([...new Generator(3).exponential([3], 2).data]).toEqual(waits);
    const rng = new Generator(3);
    const weights = [1, 2, 3, 4, 5, 6, 7, 8];
    expect([...rng.multinomial(weights, 5)]).toEqual([6, 0, 3, 7, 5]);
    expect([...rng.multinomial(weights, 6, { replacement: true })]).toEqual([4, 7, 3, 6, 5, 4]);
    expect([...rng.multinomial(weights, 1, { replacement: true })]).toEqual([7]);
  });

  it('one stream through different calls, with the spare normal number kept', () => {
    const rng = new Generator(5);
    rng.randn([3]);
    rng.rand([4]);
    expect([...rng.randn([3]).data]).toEqual([0.6675242781639099, -1.4017020463943481, -0.7625571489334106]);
    expect(numbers(rng.randint(0, 1000, [3]).data)).toEqual([423, 500, 527]);
    expect([...rng.randperm(5)]).toEqual([4, 2, 1, 3, 0]);
    expect(bitsOf(rng.randn([17]).data)).toBe(3338440218);
  });

  it('any integer as a seed', () => {
    expect(new Generator(2 ** 40 + 7).rand([1]).data[0]).toBe(0.5349225401878357);
    expect(new Generator(-1).rand([1]).data[0]).toBe(0.9937993884086609);
    expect(new Generator(-1).initialSeed).toBe(2n ** 64n - 1n);
  });
});

describe('Generator state', () => {
  it('continues bit for bit, wherever it was taken', () => {
    for (const before of [0, 3, 16, 623, 624, 625]) {
      const rng = new Generator(123);
      rng.rand([before]);
      rng.randn([before % 5]); // leaves a spare normal number now and then
      const copy = Generator.fromState(rng.state());
      expect(copy.state()).toEqual(rng.state());
      expect(copy.randn([5]).data).toEqual(rng.randn([5]).data);
      expect(copy.randn([50]).data).toEqual(rng.randn([50]).data);
      expect(copy.initialSeed).toBe(123n);
    }
  });

  it('lies where torch.get_rng_state() puts it', () => {
    const rng = new Generator(123);
    rng.randn([3]);
    rng.rand([5]);
    const view = new DataView(rng.state().buffer);
    expect([view.byteLength, view.getInt32(8, true), view.getInt32(12, true)]).toEqual([5056, 612, 1]);
    expect(view.getBigUint64(16, true)).toBe(13n);
    expect([0, 1, 2].map((i) => view.getBigUint64(24 + 8 * i, true))).toEqual([1122872025n, 737094441n, 4160526012n]);
    expect([view.getFloat64(5024, true), view.getInt32(5040, true)]).toEqual([-0.24041797675874255, 1]);
  });

  it('refuses what is no state', () => {
    expect(() => Generator.fromState(new Uint8Array(12))).toThrow('a state of 12 bytes, expected 5056');
    expect(() => Generator.fromState(new Uint8Array(5056))).toThrow('not the state of a seeded mt19937');
  });

  it('forks into a stream of its own, the same each time', () => {
    const [a, b] = [new Generator(4), new Generator(4)].map((rng) => [rng.fork().rand([4]).data, rng.rand([4]).data]);
    expect(a).toEqual(b);
    expect(a[0]).not.toEqual(a[1]);
  });
});

describe('Generator refuses', () => {
  const rng = new Generator(0);
  it.each([
    ['a fractional seed', () => new Generator(1.5), 'seed 1.5, expected an integer'],
    ['an empty range of integers', () => rng.randint(3, 3, [1]), 'randint bounds 3..3'],
    ['a negative deviation', () => rng.normal([2], 0, -1), 'standard deviation -1'],
    ['bounds the wrong way round', () => rng.uniform([2], 1, 0), 'uniform bounds 1..0'],
    ['a probability above 1', () => rng.bernoulli(1.5, [1]), 'probability 1.5'],
    ['a rate of 0', () => rng.exponential([1], 0), 'rate 0'],
    ['a negative length', () => rng.randperm(-1), 'permutation length -1'],
    ['weights without mass', () => rng.multinomial([0, 0], 1), 'weights must be finite'],
    ['more draws than there are things', () => rng.multinomial([1, 0, 1], 3), '3 draws without replacement from 2'],
  ])('%s', (_, call, message) => {
    expect(call).toThrow(message);
  });
});
