import { ndarray, sizeOf } from '../../array/index.js';
import { once } from '../once.js';
import type { Rule } from '../rewrite.js';
import type { Tensor } from '../tensor.js';
import { gather } from './indexing.js';
import { constant } from './leaves.js';

/** Transpositions of whole rows by Gather: two thirds of Transpose's time within a training step (docs/performance.md). */
export function rowMoves(): Rule {
  const orders = new Map<string, Tensor>();
  return ([x], attrs, { shape, dtype }) => {
    const perm = attrs.perm as readonly number[];
    const length = shape.at(-1)!;
    if (perm.at(-1) !== x.rank - 1 || dtype !== 'float32' || length < LONG_ROW || x.size < MANY_NUMBERS)
      return undefined;
    const order = once(orders, `${x.shape} ${perm}`, () => {
      const strides = perm.map((axis) => x.shape.slice(axis + 1, -1).reduce((a, b) => a * b, 1));
      const places = shape.slice(0, -1);
      const source = (at: readonly number[]) => at.reduce((sum, i, axis) => sum + i * strides[axis], 0);
      return constant(ndarray(rowIndices(places, source), places, 'int32'));
    });
    return gather(x.reshape([-1, length]), order);
  };
}

/** Numbers of a row, and of all rows, from which that is faster. */
const LONG_ROW = 8;
const MANY_NUMBERS = 2 ** 16;

/** For each place of a shape, in order, the number of the row that belongs there. */
export function rowIndices(shape: readonly number[], row: (at: readonly number[]) => number): Int32Array<ArrayBuffer> {
  const indices = new Int32Array(sizeOf(shape));
  const at = shape.map(() => 0);
  for (let k = 0; k < indices.length; k++) {
    indices[k] = row(at);
    for (let i = shape.length - 1; i >= 0 && ++at[i] === shape[i]; i--) at[i] = 0;
  }
  return indices;
}
