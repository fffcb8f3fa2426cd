import { type DType, type Shape, sizeOf } from '../array/index.js';

export { sizeOf };

/** NumPy's broadcasting of two shapes. @throws RangeError when they do not fit. */
export function broadcast(a: Shape, b: Shape, what: string): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new RangeError(`${what}: shapes [${a}] and [${b}] do not broadcast`);
    return x === 1 ? y : x;
  });
}

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((d, i) => d === b[i]);

/** An axis counted from the end when negative. @throws RangeError outside the rank. */
export function axisOf(axis: number, rank: number, what: string): number {
  const positive = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || positive < 0 || positive >= rank)
    throw new RangeError(`${what}: axis ${axis} of a tensor with ${rank} axes`);
  return positive;
}

export const isFloat = (dtype: DType): boolean => dtype === 'float32' || dtype === 'float64' || dtype === 'float16';

export const range = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i);
