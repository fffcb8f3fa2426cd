import { apply, type Op } from '../op.js';
import type { Tensor } from '../tensor.js';
import { constant } from './leaves.js';

export type AffineAttrs = { scale: number; shift: number };
/** A primitive, because some layouts have all of it in one pass. */
const affineOp: Op<AffineAttrs> = {
  name: 'affine',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs: [x, addend] }, { scale, shift }) => {
    const plus = (sum: Tensor, y?: Tensor) => (y ? sum.add(y) : sum);
    const result = plus(plus(x.mul(scale), shift === 0 ? undefined : constant(shift, x.dtype)), addend);
    e.compute([result]);
    return [e.name(result)];
  },
  gradient: ({ inputs: [, addend], attrs: { scale } }) => [
    (g) => affine(g, scale, 0),
    ...(addend ? [(g: Tensor) => g] : []),
  ],
  elementwise: true,
};
/** scale x + shift + addend, with numbers and an addend of x's shape. */
export const affine = (x: Tensor, scale: number, shift: number, addend?: Tensor): Tensor =>
  apply(affineOp, addend ? [x, addend] : [x], { scale, shift });
