import type { NdArray } from '../../array/index.js';
import type { Matrix } from './dots.js';

/**
 * Features of pictures as a matrix.
 * @throws RangeError unless they are [n, d] with n of at least `least`, d of at least 1, all finite.
 */
export function featureMatrix(what: string, { shape, data }: NdArray<'float32'>, least = 2): Matrix {
  const [rows, width] = shape;
  if (shape.length !== 2 || rows < least || width < 1)
    throw new RangeError(`${what}: features [${shape}], expected [n, d] with n of at least ${least}`);
  const odd = data.findIndex((x) => !Number.isFinite(x));
  if (odd >= 0)
    throw new RangeError(`${what}: feature ${odd % width} of picture ${Math.floor(odd / width)} is ${data[odd]}`);
  return { data, rows, width };
}

/** @throws RangeError when the widths differ. */
export function checkSameWidth(what: string, a: number, b: number): void {
  if (a !== b) throw new RangeError(`${what}: real features have ${a} numbers, generated ones ${b}`);
}
