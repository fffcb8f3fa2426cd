import { type DType, type NdArray, ndarray, type Shape } from '../../array/index.js';
import { leaf, type Op } from '../op.js';
import type { Tensor } from '../tensor.js';

const never = (): never => {
  throw new Error('leaves have no inputs to infer from');
};

const inputOp: Op = { name: 'input', infer: never, emit: never };
/** A value given at each call of a compiled function. */
export const input = (shape: Shape, dtype: DType): Tensor => leaf(inputOp, {}, shape, dtype);

export const constantOp: Op<{ array: NdArray }> = {
  name: 'constant',
  infer: never,
  emit: (e, _, { array }) => [e.constant(array)],
};

const scalars = new Map<string, Tensor>();

/**
 * A tensor whose values are part of the graph. Put nothing here that changes between calls: it would recompile.
 * @param value a number, (nested shapes through NdArray) a list of numbers, or an array, which must not change later.
 */
export function constant(value: number | readonly number[] | NdArray, dtype: DType = 'float32'): Tensor {
  if (typeof value === 'number') {
    const key = `${dtype} ${Object.is(value, -0) ? '-0' : value}`;
    let scalar = scalars.get(key);
    if (!scalar) {
      scalar = leaf(constantOp as unknown as Op, { array: ndarray([value], [], dtype) }, [], dtype);
      scalars.set(key, scalar);
    }
    return scalar;
  }
  const array = 'data' in value ? value : ndarray(value, [value.length], dtype);
  return leaf(constantOp as unknown as Op, { array }, array.shape, array.dtype);
}

/** The number a scalar constant holds, if `x` is one: lets builders drop `x * 1` and `x + 0`. */
export function scalarValue(x: Tensor): number | undefined {
  if (x.op.name !== 'constant' || x.rank !== 0) return undefined;
  return Number((x.attrs.array as NdArray).data[0]);
}

export const zerosLike = (x: Tensor): Tensor => constant(0, x.dtype).expand(x.shape);
