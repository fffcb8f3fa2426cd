import { apply, type Op } from '../op.js';
import { broadcast, range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { sumTo } from './reduce.js';
import { transpose } from './shape.js';

type MatMulAttrs = { transA: boolean; transB: boolean; alpha: number };

const matmulOp: Op<MatMulAttrs> = {
  name: 'matmul',
  infer: ([a, b], { transA, transB }) => {
    if (a.rank < 2 || b.rank < 2 || a.dtype !== b.dtype)
      throw new RangeError(
        `matmul: needs matrices of one dtype, got [${a.shape}] ${a.dtype} and [${b.shape}] ${b.dtype}`,
      );
    const [m, k] = transA ? [a.shape.at(-1)!, a.shape.at(-2)!] : [a.shape.at(-2)!, a.shape.at(-1)!];
    const [l, n] = transB ? [b.shape.at(-1)!, b.shape.at(-2)!] : [b.shape.at(-2)!, b.shape.at(-1)!];
    if (k !== l)
      throw new RangeError(
        `matmul: inner dimensions differ: [${a.shape}]${transA ? 'ᵀ' : ''} @ [${b.shape}]${transB ? 'ᵀ' : ''}`,
      );
    return { shape: [...broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2), 'matmul'), m, n], dtype: a.dtype };
  },
  emit: (e, { inputs: [a, b] }, { transA, transB, alpha }) => {
    const names = [e.name(a), e.name(b)];
    if (!transA && !transB && alpha === 1) return e.node('MatMul', names);
    const attributes = { transA: { i: Number(transA) }, transB: { i: Number(transB) }, alpha: { f: alpha } };
    if (a.rank === 2 && b.rank === 2) return e.node('Gemm', names, attributes);
    return e.node('FusedMatMul', names, attributes, { domain: 'com.microsoft' });
  },
  gradient: ({ inputs: [a, b], attrs: { transA, transB, alpha } }) => [
    (g) =>
      sumTo(
        transA ? matmul(b, g, { transA: transB, transB: true, alpha }) : matmul(g, b, { transB: !transB, alpha }),
        a.shape,
      ),
    (g) =>
      sumTo(
        transB ? matmul(g, a, { transA: true, transB: transA, alpha }) : matmul(a, g, { transA: !transA, alpha }),
        b.shape,
      ),
  ],
};

/** alpha * op(a) @ op(b), batched over the leading axes with broadcasting; op transposes the last two axes. */
export function matmul(
  a: Tensor,
  b: Tensor,
  { transA = false, transB = false, alpha = 1 }: Partial<MatMulAttrs> = {},
): Tensor {
  return apply(matmulOp, [a, b], { transA, transB, alpha });
}

const gemm: Op<Record<string, never>> = {
  name: 'linear',
  infer: ([x, weight, bias]) => {
    if (x.rank !== 2 || weight.rank !== 2 || x.shape[1] !== weight.shape[1] || (bias && bias.size !== weight.shape[0]))
      throw new RangeError(
        `linear: [${x.shape}] does not fit the weight [${weight.shape}]${bias ? ` and bias [${bias.shape}]` : ''}`,
      );
    return { shape: [x.shape[0], weight.shape[0]], dtype: x.dtype };
  },
  emit: (e, { inputs }) =>
    e.node(
      'Gemm',
      inputs.map((x) => e.name(x)),
      { transB: { i: 1 } },
    ),
  gradient: ({ inputs: [x, weight, bias] }) => [
    (g) => matmul(g, weight),
    (g) => matmul(g, x, { transA: true }),
    ...(bias ? [(g: Tensor) => sumTo(g, bias.shape)] : []),
  ],
};
/** x Wᵀ + b over the last axis of x: [..., in] with W [out, in] gives [..., out]. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const features = x.shape.at(-1)!;
  const rows = x.reshape([x.size / features, features]);
  const y = apply(gemm, bias ? [rows, weight, bias] : [rows, weight], {});
  return y.reshape([...x.shape.slice(0, -1), weight.shape[0]]);
}

/** Swaps the last two axes. */
export const matrixTranspose = (x: Tensor): Tensor => transpose(x, [...range(x.rank - 2), x.rank - 1, x.rank - 2]);
