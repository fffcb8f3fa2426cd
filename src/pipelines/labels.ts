import { type NdArray, ndarray } from '../array/index.js';

/** Class labels [N] of a model, checked. @throws RangeError for one outside 0..last, and for none at all. */
export function labelsOf(name: string, classes: readonly number[], last: number): NdArray<'int64'> {
  for (const label of classes)
    if (!Number.isInteger(label) || label < 0 || label > last)
      throw new RangeError(`${name}: class label ${label} out of range 0..${Math.max(0, last - 1)}`);
  if (classes.length === 0) throw new RangeError(`${name}: expected at least one class to sample, got none`);
  return ndarray([...classes], [classes.length], 'int64');
}
