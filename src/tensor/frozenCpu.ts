import { reachable } from './graph.js';
import { apply, isFurtherOutput, type Op } from './op.js';
import { matmul } from './ops/linear.js';
import { softmax } from './ops/normalize.js';
import { concat } from './ops/shape.js';
import { type Rule, rewrite } from './rewrite.js';
import { range } from './shape.js';
import type { Tensor } from './tensor.js';

/** The outputs in what onnxruntime computes best on the CPU from frozen weights. */
export function forFrozenCpu(outputs: readonly Tensor[]): Tensor[] {
  // A gradient reads the weights of an attention, too.
  const differentiated = new Set(
    reachable(outputs)
      .filter(isFurtherOutput)
      .map(({ inputs }) => inputs[0]),
  );
  const attend: Rule = (inputs, _, original) => (differentiated.has(original) ? undefined : attention(inputs));
  return rewrite(outputs, { attend });
}

type AttentionAttrs = { heads: number; scale: number };
/** softmax(q kᵀ scale) v, of tokens [N, L, heads * D], in blocks that fit the cache: no matrix of all scores. */
const attentionOp: Op<AttentionAttrs> = {
  name: 'attention',
  infer: ([q, , v]) => ({ shape: [q.shape[0], q.shape[1], v.shape[2]], dtype: q.dtype }),
  emit: (e, { inputs }, { heads, scale }) =>
    e.node(
      'MultiHeadAttention',
      inputs.map((x) => e.name(x)),
      { num_heads: { i: heads }, scale: { f: scale } },
      { domain: 'com.microsoft' },
    ),
};

/** Scores of a head from which the blocked form is worth its transposes. */
const BLOCKED_SCORES = 2 ** 20;
/** Scores of all heads that one slice of the queries may have, where there is a mask, which the blocked form lacks. */
const SLICE_SCORES = 2 ** 23;

function attention([scores, v]: readonly Tensor[]): Tensor | undefined {
  const masked = scores.op.name === 'add';
  const product = masked ? scores.inputs.find((x) => x.op.name === 'matmul') : scores;
  const { transA, transB, alpha } = (product?.attrs ?? {}) as { transA?: boolean; transB?: boolean; alpha?: number };
  if (product?.op.name !== 'matmul' || v.dtype !== 'float32' || transA || !transB) return undefined;
  const [q, k] = product.inputs;
  const [queries, keys] = scores.shape.slice(-2);
  if (masked) {
    const mask = scores.inputs.find((x) => x !== product);
    return mask && scores.size > SLICE_SCORES ? inSlices(q, k, v, mask, alpha!) : undefined;
  }
  const heads = q.shape.slice(0, 2);
  const alike = [q, k, v].every((x) => x.rank === 4 && `${x.shape.slice(0, 2)}` === `${heads}`);
  if (!alike || queries * keys < BLOCKED_SCORES) return undefined;
  const y = apply(attentionOp, [q, k, v].map(toTokens), { heads: heads[1], scale: alpha! });
  return y.reshape([heads[0], queries, heads[1], v.shape[3]]).transpose([0, 2, 1, 3]);
}

/** [N, heads, L, D] to [N, L, heads * D] */
function toTokens(x: Tensor): Tensor {
  const [n, heads, length, width] = x.shape;
  const swapped = x.op.name === 'transpose' && `${x.attrs.perm}` === '0,2,1,3';
  return (swapped ? x.inputs[0] : x.transpose([0, 2, 1, 3])).reshape([n, length, heads * width]);
}

function inSlices(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, alpha: number): Tensor {
  const axis = q.rank - 2;
  const queries = q.shape[axis];
  const rows = Math.max(1, Math.floor((SLICE_SCORES * queries) / ((q.size / q.shape[axis + 1]) * k.shape[axis])));
  const slices = range(Math.ceil(queries / rows)).map((i) => {
    const part = (x: Tensor) => x.slice(x.rank - 2, i * rows, Math.min(queries, (i + 1) * rows));
    const scores = matmul(part(q), k, { transB: true, alpha });
    const ofRows = mask.rank > 1 && mask.shape[mask.rank - 2] > 1 ? part(mask) : mask;
    return matmul(softmax(scores.add(ofRows)), v);
  });
  return slices.length === 1 ? slices[0] : concat(slices, slices[0].rank - 2);
}
