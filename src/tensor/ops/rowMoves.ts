import { ndarray } from '../../array/index.js';
import type { Rule } from '../rewrite.js';
import { range } from '../shape.js';
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
    const key = `${x.shape} ${perm}`;
    const order =
      orders.get(key) ?? constant(ndarray(orderOf(x.shape.slice(0, -1), perm), shape.slice(0, -1), 'int32'));
    orders.set(key, order);
    return gather(x.reshape([-1, length]), order);
  };
}

/** Numbers of a row, and of all rows, from which that is faster. */
const LONG_ROW = 8;
const MANY_NUMBERS = 2 ** 16;

/** For each row of the transposition, in order, where it was. */
function orderOf(shape: readonly number[], perm: readonly number[]): Int32Array<ArrayBuffer> {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  let places = new Int32Array(1);
  for (const axis of perm.slice(0, -1)) {
    const next = new Int32Array(places.length * shape[axis]);
    for (const [k, place] of places.entries())
      for (const i of range(shape[axis])) next[k * shape[axis] + i] = place + i * strides[axis];
    places = next;
  }
  return places;
}
