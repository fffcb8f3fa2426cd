import { describe, expect, it } from 'vitest';
import { erf, erfinv } from './erf.js';
import { Generator } from './generator.js';
import { biasUniform, fans, kaimingUniform, normalWeights, truncNormal, xavierUniform } from './initializers.js';

const bitsOf = (data: Float32Array): number =>
  new Uint32Array(data.buffer).reduce((sum, word, i) => (sum + Math.imul(word, i + 1)) >>> 0, 0);

// Checksums over the bits of what torch.nn and torch.nn.init give after manual_seed(0), PyTorch 1.13 with AVX2.
describe('initialisers', () => {
  it('Linear and Conv2d as PyTorch starts them', () => {
    for (const [shape, weight, bias] of [
      [[40, 50], 2364872561, 2102644688],
      [[4, 3, 3, 3], 151506914, 1720902064], // Conv2d(6, 4, 3, groups=2)
    ] as const) {
      const rng = new Generator(0);
      expect(bitsOf(kaimingUniform(rng, shape).data)).toBe(weight);
      expect(bitsOf(biasUniform(rng, shape).data)).toBe(bias);
    }
  });

  it('kaiming_uniform_, xavier_uniform_ and Embedding', () => {
    expect(bitsOf(kaimingUniform(new Generator(0), [20, 30], 0).data)).toBe(4121602926);
    const rng = new Generator(0);
    expect(bitsOf(xavierUniform(rng, [20, 30]).data)).toBe(361664250);
    expect(bitsOf(xavierUniform(rng, [4, 3, 5, 5], 2).data)).toBe(3875053999);
    expect(bitsOf(normalWeights(new Generator(0), [6, 5]).data)).toBe(2042647209);
  });

  it('trunc_normal_', () => {
    const rng = new Generator(0);
    const wide = truncNormal(rng, [4]).data;
    const narrow = truncNormal(rng, [4], { mean: 0.5, std: 0.02, low: 0.47, high: 0.56 }).data;
    const expected = [
      -0.008956512436270714, 0.6935495734214783, -1.2415472269058228, -1.0417094230651855, 0.49247023463249207,
      0.5081222057342529, 0.5011786818504333, 0.5258783102035522,
    ];
    expected.forEach((x, i) => {
      expect([...wide, ...narrow][i]).toBeCloseTo(x, 6);
    });
  });

  it('counts a convolution by its field, and refuses a vector', () => {
    expect(fans([8, 3, 5, 5])).toEqual({ fanIn: 75, fanOut: 200 });
    expect(() => kaimingUniform(new Generator(0), [8])).toThrow('at least 2 axes, this one [8]');
  });
});

describe('erf and erfinv', () => {
  it('to 1e-14', () => {
    const points = [
      [0.1, 0.1124629160182849],
      [1, 0.8427007929497149],
      [2.5, 0.999593047982555],
      [-4, -0.9999999845827421],
      [6.5, 1],
    ];
    for (const [x, y] of points) expect(erf(x)).toBeCloseTo(y, 14);
    const inverse = [
      [0.1, 0.08885599049425769],
      [0.5, 0.4769362762044699],
      [0.9, 1.1630871536766743],
      [0.999, 2.3267537655135153],
    ];
    for (const [y, x] of inverse) expect(erfinv(y)).toBeCloseTo(x, 13);
    expect([erfinv(0), erfinv(1), erfinv(-1), erfinv(1.5)]).toEqual([
      0,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      Number.NaN,
    ]);
    for (const x of [0.3, 2.2, 3.7]) expect(erfinv(erf(-x))).toBeCloseTo(-x, 8);
  });
});
