import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../../array/index.js';
import { Generator } from '../../random/index.js';
import { dots } from './dots.js';
import { featureStatistics, fid, frechetDistance, kid, precisionRecall } from './index.js';
import { symmetricEigenvalues } from './symmetricEigenvalues.js';

/** The features for which NumPy and SciPy computed the expected numbers below. */
function waves(n: number, d: number, shift: number, scale: number): NdArray<'float32'> {
  const value = (i: number, j: number): number => Math.sin(i * (j + 1) * 0.7 + j * j + shift) * (1 + j) * scale + shift;
  return ndarray(
    Float32Array.from({ length: n * d }, (_, at) => value(Math.floor(at / d), at % d)),
    [n, d],
  );
}

const subsetOf = ({ data, shape }: NdArray<'float32'>, n: number): NdArray<'float32'> =>
  ndarray(data.slice(0, n * shape[1]), [n, shape[1]]);

describe('dots', () => {
  it('gives every dot product, whatever the shapes', () => {
    const rng = new Generator(0);
    for (const [n, m, d] of [
      [1, 1, 1],
      [70, 3, 5],
      [64, 129, 2],
      [67, 67, 7],
    ]) {
      const a = { data: rng.randn([n, d]).data, rows: n, width: d };
      const b = { data: rng.randn([m, d]).data, rows: m, width: d };
      for (const other of n === m ? [a, b] : [b]) {
        const expected = Array.from({ length: n * m }, (_, at) => {
          let sum = 0;
          for (let k = 0; k < d; k++) sum += a.data[Math.floor(at / m) * d + k] * other.data[(at % m) * d + k];
          return sum;
        });
        for (const [at, dot] of dots(a, other).data.entries()) expect(dot).toBeCloseTo(expected[at], 12);
      }
    }
    const [a, b] = [2, 3].map((width) => ({ data: new Float32Array(6), rows: 6 / width, width }));
    expect(() => dots(a, b)).toThrow(/rows of 2 numbers with rows of 3/);
  });
});

describe('symmetricEigenvalues', () => {
  it('finds known spectra', () => {
    expect([...symmetricEigenvalues(Float64Array.of(), 0)]).toEqual([]);
    expect([...symmetricEigenvalues(Float64Array.of(5), 1)]).toEqual([5]);
    const two = symmetricEigenvalues(Float64Array.of(2, -1, -1, 2), 2);
    expect(two[0]).toBeCloseTo(1, 14);
    expect(two[1]).toBeCloseTo(3, 14);
    expect([...symmetricEigenvalues(new Float64Array(9), 3)]).toEqual([0, 0, 0]);
    // The second difference on n points: 2 - 2 cos(pi k / (n + 1)).
    const n = 40;
    const line = Float64Array.from({ length: n * n }, (_, at) => {
      const apart = Math.abs(Math.floor(at / n) - (at % n));
      return apart === 0 ? 2 : apart === 1 ? -1 : 0;
    });
    for (const [k, value] of symmetricEigenvalues(line, n).entries())
      expect(value).toBeCloseTo(2 - 2 * Math.cos((Math.PI * (k + 1)) / (n + 1)), 12);
  });

  it('keeps trace and squares of a full matrix', () => {
    const n = 30;
    const x = new Generator(3).randn([n, n]).data;
    const a = Float64Array.from({ length: n * n }, (_, at) => x[at] + x[(at % n) * n + Math.floor(at / n)]);
    const values = symmetricEigenvalues(a, n);
    expect(values.reduce((s, v) => s + v, 0)).toBeCloseTo(
      a.reduce((s, v, at) => s + (at % (n + 1) === 0 ? v : 0), 0),
      10,
    );
    expect(values.reduce((s, v) => s + v * v, 0)).toBeCloseTo(
      a.reduce((s, v) => s + v * v, 0),
      8,
    );
    expect(() => symmetricEigenvalues(Float64Array.of(1, Number.NaN, Number.NaN, 1), 2)).toThrow(/no convergence/);
  });
});

describe('FID', () => {
  it('agrees with a case computed by hand', () => {
    // Diagonal covariances: |(3, 4)|^2 + (1 - 3)^2 + (2 - 1)^2.
    const a = { mean: Float64Array.of(0, 0), covariance: Float64Array.of(1, 0, 0, 4) };
    const b = { mean: Float64Array.of(3, 4), covariance: Float64Array.of(9, 0, 0, 1) };
    expect(frechetDistance(a, b)).toBeCloseTo(30, 12);
  });

  it('agrees with scipy.linalg.sqrtm', () => {
    expect(fid(waves(70, 6, 0, 0.1), waves(70, 6, 0.25, 0.09))).toBeCloseTo(0.3946917078758967, 7);
  });

  it('takes singular covariances', () => {
    const spread = ({ data }: NdArray<'float32'>): NdArray<'float32'> => {
      const rows = Array.from({ length: 70 }, (_, i) => [...data.subarray(3 * i, 3 * i + 3)]);
      return ndarray(
        rows.flatMap(([x, y, z]) => [x, y, z, x + y, 2 * x + z, y + 3 * z]),
        [70, 6],
      );
    };
    // By numpy.linalg.eigh: the root of one covariance, then the eigenvalues of root @ other @ root.
    expect(fid(spread(waves(70, 3, 0, 0.1)), spread(waves(70, 3, 0.25, 0.2)))).toBeCloseTo(2.576038577, 5);
    const constant = ndarray(new Float32Array(12).fill(1), [4, 3]);
    expect(fid(constant, constant)).toBe(0);
  });

  it('is 0 for the same features, and symmetric', () => {
    const [a, b] = [waves(50, 4, 0, 1), waves(90, 4, 0.5, 1)];
    expect(fid(a, a)).toBeCloseTo(0, 9);
    expect(fid(a, b)).toBeCloseTo(fid(b, a), 9);
  });
});

describe('KID', () => {
  it('agrees with NumPy over everything', () => {
    const { mean, std } = kid(waves(70, 6, 0, 0.1), waves(70, 6, 0.25, 0.09));
    expect([mean, std]).toEqual([expect.closeTo(0.19289317500964964, 6), 0]);
  });

  it('is unbiased: 0 on average for one distribution', () => {
    const rng = new Generator(0);
    const values = Array.from({ length: 200 }, () => kid(rng.randn([20, 2]), rng.randn([20, 2])).mean);
    const mean = values.reduce((a, b) => a + b) / values.length;
    const error = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0)) / values.length;
    expect(Math.abs(mean)).toBeLessThan(3 * error);
  });

  it('averages over subsets, which depend on the seed alone', () => {
    const rng = new Generator(0);
    const [a, b] = [rng.randn([300, 4]), rng.uniform([200, 4], 0, 2)];
    const whole = kid(subsetOf(a, 200), b).mean;
    const options = { subsets: 100, subsetSize: 100 };
    const { mean, std } = kid(subsetOf(a, 200), b, options);
    expect(Math.abs(mean - whole)).toBeLessThan(0.3 * std);
    expect(kid(a, b, options)).toEqual(kid(a, b, options));
    expect(kid(a, b, options)).not.toEqual(kid(a, b, { ...options, seed: 1 }));
  });

  it('takes more pictures than the kernel of all pairs has room for', () => {
    const [ones, zeros] = [1, 0].map((value) => ndarray(new Float32Array(8193).fill(value), [8193, 1]));
    expect(kid(ones, zeros, { subsets: 2, subsetSize: 9 })).toEqual({ mean: 7, std: 0 });
  });
});

describe('precision and recall', () => {
  it('agree with all pairs in NumPy', () => {
    const [a, b] = [waves(70, 2, 0, 0.1), waves(60, 2, 0.05, 0.08)];
    expect(precisionRecall(a, b)).toEqual({ precision: 8 / 60, recall: 8 / 70 });
    expect(precisionRecall(a, b, { k: 1 })).toEqual({ precision: 7 / 60, recall: 7 / 70 });
  });

  it('tell missing variety from missing quality', () => {
    const rng = new Generator(0);
    const real = rng.randn([300, 3]);
    const narrow = ndarray(
      rng.randn([300, 3]).data.map((x) => x * 0.2),
      [300, 3],
    );
    const collapsed = precisionRecall(real, narrow);
    expect(collapsed.precision).toBeGreaterThan(0.95);
    expect(collapsed.recall).toBeLessThan(0.3);
    expect(precisionRecall(narrow, real)).toEqual({ precision: collapsed.recall, recall: collapsed.precision });
    expect(precisionRecall(real, real)).toEqual({ precision: 1, recall: 1 });
  });
});

it('says what is wrong with features', () => {
  const good = waves(8, 2, 0, 1);
  expect(() => fid(good, waves(8, 3, 0, 1))).toThrow(/real features have 2 numbers, generated ones 3/);
  expect(() => featureStatistics(ndarray([1, 2], [1, 2]))).toThrow(
    /features \[1,2\], expected \[n, d\] with n of at least 2/,
  );
  expect(() => kid(good, ndarray([1, Number.NaN, 3, 4], [2, 2]))).toThrow(/KID: feature 1 of picture 0 is NaN/);
  expect(() => precisionRecall(good, waves(3, 2, 0, 1))).toThrow(/n of at least 4/);
  expect(() => precisionRecall(good, good, { k: 0 })).toThrow(/k 0, expected 1, 2/);
  expect(() => kid(good, good, { subsets: 0 })).toThrow(/0 subsets of 8/);
});
