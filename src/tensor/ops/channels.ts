import { ndarray } from '../../array/index.js';
import { apply, type Op } from '../op.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';

const positions = (x: Tensor): number[] => range(x.rank - 2, 2);

export type ScaleShiftAttrs = { shift: boolean; addend: boolean };
const scaleShiftOp: Op<ScaleShiftAttrs> = {
  name: 'scaleShift',
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  emit: (e, { inputs: [x, scale, ...summands] }) => {
    const [scaled] = e.node('Mul', [e.name(x), e.name(scale)]);
    return [summands.reduce((sum, summand) => e.node('Add', [sum, e.name(summand)])[0], scaled)];
  },
  gradient: ({ inputs: [x, scale], attrs: { shift, addend } }) => [
    (g) => scaleShift(g, scale),
    (g) => channelProducts(g, x),
    ...(shift ? [(g: Tensor) => g.sum(positions(x), true)] : []),
    ...(addend ? [(g: Tensor) => g] : []),
  ],
};
/** x scale + shift + addend, for x and addend [N, C, ...], scale and shift [N, C, 1, ...]. */
export function scaleShift(x: Tensor, scale: Tensor, shift?: Tensor, addend?: Tensor): Tensor {
  const attrs = { shift: shift !== undefined, addend: addend !== undefined };
  const summands = [shift, addend].filter((y) => y !== undefined);
  return apply(scaleShiftOp, [x, scale, ...summands], attrs);
}

type Nothing = Record<string, never>;
const productsOp: Op<Nothing> = {
  name: 'channelProducts',
  infer: ([x]) => ({ shape: x.shape.map((d, i) => (i < 2 ? d : 1)), dtype: x.dtype }),
  emit(e, { inputs: [x, y] }) {
    const [product] = e.node('Mul', [e.name(x), e.name(y)]);
    const axes = positions(x);
    return axes.length === 0
      ? [product]
      : e.node('ReduceSum', [product, e.constant(ndarray(axes, [axes.length], 'int64'))]);
  },
  gradient: ({ inputs: [x, y] }) => [(g) => scaleShift(y, g), (g) => scaleShift(x, g)],
};
/** Sums of x y over positions: [N, C, ...] to [N, C, 1, ...]. */
export const channelProducts = (x: Tensor, y: Tensor): Tensor => apply(productsOp, [x, y], {});
