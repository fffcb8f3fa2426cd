import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray, zeros } from '../src/array/index.js';
import { compare, worstOf } from './compare.js';

const within = (tolerance: number, absolute = false) => ({ tolerance, absolute, reason: '' });
const close = within(1e-4);

describe('compare', () => {
  const reference = ndarray([1, -100, 3]);

  it('divides the worst difference by the largest magnitude', () => {
    const result = compare('out', ndarray([1, -100, 3.005]), reference, close);
    expect(result).toMatchObject({ pass: true, reason: '' });
    expect(result.error).toBeCloseTo(5e-5, 7);
    expect(compare('out', ndarray([1, -100, 3.005]), reference, within(1e-3, true)).pass).toBe(false);
  });

  it('does not divide by a reference of zeros', () => {
    expect(compare('out', ndarray([0, 1e-3]), zeros([2]), close)).toMatchObject({ pass: false });
    expect(compare('out', zeros([2]), zeros([2]), within(0))).toMatchObject({ pass: true, error: 0 });
  });

  it('counts int64 beyond 2^53', () => {
    const [a, b] = [2n ** 60n, 2n ** 60n + 1n].map((x) => ndarray(BigInt64Array.of(x), [1], 'int64'));
    expect(compare('ids', a, a, within(0)).pass).toBe(true);
    expect(compare('ids', a, b, within(0)).pass).toBe(false);
  });

  it.each<[string, NdArray | undefined, string]>([
    ['is missing', undefined, 'out: missing from our outputs'],
    ['has another shape', ndarray([1, -100, 3], [3, 1]), 'out: expected float32 [3], got float32 [3,1]'],
    ['has another dtype', ndarray([1, -100, 3], [3], 'float64'), 'out: expected float32 [3], got float64 [3]'],
    ['has a NaN', ndarray([1, Number.NaN, 3]), 'out: NaN at element 1'],
    ['has an infinity', ndarray([1, -100, Number.NEGATIVE_INFINITY]), 'out: -Infinity at element 2'],
    ['is too far off', ndarray([1, -101, 3]), 'out: error 0.0100 above 0.0001, -101 for -100 at element 1'],
  ])('fails an output that %s', (_, ours, reason) => {
    expect(compare('out', ours, reference, close)).toMatchObject({ pass: false, reason });
  });

  it('reads half-precision bits as numbers', () => {
    const half = (bits: number) => ndarray(Uint16Array.of(bits), [1], 'float16');
    expect(compare('out', half(0x3c00), half(0x3c01), within(1e-3))).toMatchObject({ pass: true });
    expect(compare('out', half(0x7e00), half(0x3c00), within(1e-3)).reason).toBe('out: NaN at element 0');
  });
});

describe('worstOf', () => {
  const result = (tensor: string, pass: boolean, error: number | undefined, tolerance: number) => ({
    tensor,
    pass,
    error,
    tolerance,
    reason: '',
  });

  it('prefers failures, then the one nearest its tolerance', () => {
    const near = result('near', true, 9e-7, 1e-6);
    const far = result('far', true, 1e-5, 1e-4);
    const failed = result('failed', false, 2e-4, 1e-4);
    const lost = result('lost', false, undefined, 1e-4);
    expect(worstOf([far, near])).toBe(near);
    expect(worstOf([near, failed, far])).toBe(failed);
    expect(worstOf([failed, lost])).toBe(lost);
    expect(worstOf([])).toBeUndefined();
  });

  it('counts a difference where none is allowed as the worst', () => {
    const exact = result('exact', true, 0, 0);
    const near = result('near', true, 9e-7, 1e-6);
    expect(worstOf([exact, near])).toBe(near);
  });
});
