import type { DType, Shape } from '../array/index.js';
import type { Attrs, Op, Section } from './op.js';
import * as e from './ops/elementwise.js';
import { scalarValue } from './ops/leaves.js';
import { matmul } from './ops/linear.js';
import { logSoftmax, softmax } from './ops/normalize.js';
import * as r from './ops/reduce.js';
import * as s from './ops/shape.js';
import { sizeOf } from './shape.js';

let count = 0;

/**
 * A node of a symbolic graph: it has a shape and a dtype, but values only once a compiled function runs.
 * Binary methods broadcast like NumPy and take numbers; axes may be negative.
 */
export class Tensor {
  /** Grows in the order of construction, which is the order of execution. */
  readonly id = count++;
  /** The nodes built on this one, by signature. */
  consumers?: Map<string, Tensor>;
  /** How soon it is of no more use: 0, constants, which all graphs share; 1, of variables, as a model's graphs do; 2, of one trace. */
  readonly passing: 0 | 1 | 2;

  constructor(
    readonly op: Op,
    readonly inputs: readonly Tensor[],
    readonly attrs: Attrs,
    readonly shape: Shape,
    readonly dtype: DType,
    readonly section: Section | undefined,
  ) {
    const leaf = op.name === 'constant' ? 0 : op.name === 'variable' ? 1 : 2;
    this.passing = inputs.length === 0 ? leaf : (Math.max(...inputs.map((x) => x.passing)) as 0 | 1 | 2);
  }

  /** Tensors in a node's attributes (the body of a loop) count by identity. */
  toJSON(): number {
    return this.id;
  }

  get rank(): number {
    return this.shape.length;
  }
  get size(): number {
    return sizeOf(this.shape);
  }

  add(x: Tensor | number): Tensor {
    const y = e.lift(x, this);
    return scalarValue(y) === 0 ? this : e.add(this, y);
  }
  sub(x: Tensor | number): Tensor {
    const y = e.lift(x, this);
    return scalarValue(y) === 0 ? this : e.sub(this, y);
  }
  mul(x: Tensor | number): Tensor {
    const y = e.lift(x, this);
    return scalarValue(y) === 1 ? this : e.mul(this, y);
  }
  div(x: Tensor | number): Tensor {
    const y = e.lift(x, this);
    return scalarValue(y) === 1 ? this : e.div(this, y);
  }
  pow(x: Tensor | number): Tensor {
    if (x === 2) return this.square();
    if (x === 0.5) return this.sqrt();
    const y = e.lift(x, this);
    return scalarValue(y) === 1 ? this : e.pow(this, y);
  }
  mod(x: Tensor | number): Tensor {
    return e.mod(this, e.lift(x, this));
  }
  maximum(x: Tensor | number): Tensor {
    return e.maximum(this, e.lift(x, this));
  }
  minimum(x: Tensor | number): Tensor {
    return e.minimum(this, e.lift(x, this));
  }
  clamp(low = Number.NEGATIVE_INFINITY, high = Number.POSITIVE_INFINITY): Tensor {
    const above = low === Number.NEGATIVE_INFINITY ? this : this.maximum(low);
    return high === Number.POSITIVE_INFINITY ? above : above.minimum(high);
  }

  equal(x: Tensor | number): Tensor {
    return e.equal(this, e.lift(x, this));
  }
  less(x: Tensor | number): Tensor {
    return e.less(this, e.lift(x, this));
  }
  lessEqual(x: Tensor | number): Tensor {
    return e.lessEqual(this, e.lift(x, this));
  }
  greater(x: Tensor | number): Tensor {
    return e.greater(this, e.lift(x, this));
  }
  greaterEqual(x: Tensor | number): Tensor {
    return e.greaterEqual(this, e.lift(x, this));
  }
  and(x: Tensor): Tensor {
    return e.and(this, x);
  }
  or(x: Tensor): Tensor {
    return e.or(this, x);
  }
  not(): Tensor {
    return e.not(this);
  }

  neg(): Tensor {
    return e.neg(this);
  }
  exp(): Tensor {
    return e.exp(this);
  }
  log(): Tensor {
    return e.log(this);
  }
  sqrt(): Tensor {
    return e.sqrt(this);
  }
  rsqrt(): Tensor {
    return e.reciprocal(e.sqrt(this));
  }
  square(): Tensor {
    return e.mul(this, this);
  }
  reciprocal(): Tensor {
    return e.reciprocal(this);
  }
  abs(): Tensor {
    return e.abs(this);
  }
  sign(): Tensor {
    return e.sign(this);
  }
  sin(): Tensor {
    return e.sin(this);
  }
  cos(): Tensor {
    return e.cos(this);
  }
  tanh(): Tensor {
    return e.tanh(this);
  }
  sigmoid(): Tensor {
    return e.sigmoid(this);
  }
  erf(): Tensor {
    return e.erf(this);
  }
  floor(): Tensor {
    return e.floor(this);
  }
  ceil(): Tensor {
    return e.ceil(this);
  }
  /** To the nearest integer, halves to the even one. */
  round(): Tensor {
    return e.round(this);
  }
  cast(dtype: DType): Tensor {
    return e.cast(this, dtype);
  }

  sum(axes?: number | readonly number[], keepDims?: boolean): Tensor {
    return r.sum(this, axes, keepDims);
  }
  mean(axes?: number | readonly number[], keepDims?: boolean): Tensor {
    return r.mean(this, axes, keepDims);
  }
  max(axes?: number | readonly number[], keepDims?: boolean): Tensor {
    return r.max(this, axes, keepDims);
  }
  min(axes?: number | readonly number[], keepDims?: boolean): Tensor {
    return r.min(this, axes, keepDims);
  }
  prod(axes?: number | readonly number[], keepDims?: boolean): Tensor {
    return r.prod(this, axes, keepDims);
  }
  argmax(axis: number, keepDims?: boolean): Tensor {
    return r.argmax(this, axis, keepDims);
  }
  cumsum(axis: number): Tensor {
    return r.cumsum(this, axis);
  }

  /** One dimension may be -1. */
  reshape(shape: Shape): Tensor {
    return s.reshape(this, shape);
  }
  transpose(perm?: readonly number[]): Tensor {
    return s.transpose(this, perm);
  }
  swapAxes(a: number, b: number): Tensor {
    const perm = this.shape.map((_, i) => i);
    const [i, j] = [a, b].map((axis) => (axis < 0 ? axis + this.rank : axis));
    [perm[i], perm[j]] = [perm[j], perm[i]];
    return s.transpose(this, perm);
  }
  expand(shape: Shape): Tensor {
    return s.expand(this, shape);
  }
  unsqueeze(axis: number): Tensor {
    return s.unsqueeze(this, axis);
  }
  squeeze(axis: number): Tensor {
    return s.squeeze(this, axis);
  }
  slice(axis: number, start: number, end?: number, step?: number): Tensor {
    return s.slice(this, axis, start, end, step);
  }
  flip(axis: number): Tensor {
    return s.flip(this, axis);
  }

  matmul(x: Tensor): Tensor {
    return matmul(this, x);
  }
  softmax(axis?: number): Tensor {
    return softmax(this, axis);
  }
  logSoftmax(axis?: number): Tensor {
    return logSoftmax(this, axis);
  }
}
