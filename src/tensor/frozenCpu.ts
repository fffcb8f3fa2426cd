import { blockedWeight } from './blockedWeight.js';
import { reachable } from './graph.js';
import { apply, isFurtherOutput, type Op } from './op.js';
import { blockedKernel } from './ops/blockedConv.js';
import { withBlockedLayout } from './ops/blockedLayout.js';
import { type ConvAttrs, extent } from './ops/conv.js';
import { matmul } from './ops/linear.js';
import { softmax } from './ops/normalize.js';
import { concat, pad, stack } from './ops/shape.js';
import { type Rule, rewrite } from './rewrite.js';
import { range } from './shape.js';
import type { Tensor } from './tensor.js';
import { upsampledConvolution } from './upsampledConv.js';
import { Variable } from './variable.js';

/**
 * The outputs in what onnxruntime computes best on the CPU from frozen weights.
 * @param block channels of a block in its blocked layout, where it has one.
 */
export function forFrozenCpu(outputs: readonly Tensor[], block?: number): Tensor[] {
  // A gradient reads the weights of an attention, too.
  const differentiated = new Set(
    reachable(outputs)
      .filter(isFurtherOutput)
      .map(({ inputs }) => inputs[0]),
  );
  const attend: Rule = (inputs, _, original) => (differentiated.has(original) ? undefined : attention(inputs));
  const conv2d: Rule = (inputs, attrs) => product(inputs, attrs as ConvAttrs);
  const rewritten = rewrite(outputs, { attend, conv2d, upsampledConv2d: upsampledConvolution(block) });
  return block
    ? withBlockedLayout(rewritten, block, { kernelInBlocks, isWorthBlocks, leastNorm: LARGE_NORM })
    : rewritten;
}

/** Elements from which a group norm in blocks takes no longer than one of reordered images (docs/performance.md). */
const LARGE_NORM = 2 ** 15;

/** Larger weights would no longer stay in their file. */
const isWorthBlocks = (w: Tensor): boolean => w.size <= 2 ** 18;

const kernelInBlocks = (w: Tensor, block: number): Tensor =>
  w instanceof Variable ? blockedWeight(w, block) : blockedKernel(w, block);

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

/** Weights of a kernel from which their copy counts, and pixels up to which a product is nearly as fast (docs/performance.md). */
const LARGE_KERNEL = 2 ** 23;
const FEW_PIXELS = 64;

/**
 * A convolution of few pixels with many weights, as one product with patches. The engine would copy its weights into
 * the blocked layout, on one thread, when the session is made; a product takes them as they lie in their file.
 */
function product([x, w, bias]: readonly Tensor[], attrs: ConvAttrs): Tensor | undefined {
  const [n, c, height, width] = x.shape;
  const [o, , kh, kw] = w.shape;
  const { stride, pads, dilation, groups } = attrs;
  const size = [extent(height, kh, 0, attrs), extent(width, kw, 1, attrs)];
  if (!(w instanceof Variable) || groups !== 1 || w.size < LARGE_KERNEL || size[0] * size[1] > FEW_PIXELS)
    return undefined;
  const none = [0, 0] as const;
  const channelsFirst = pad(x, [none, none, ...pads]).transpose([1, 0, 2, 3]);
  const cut = (image: Tensor, i: 0 | 1, from: number) =>
    image.slice(2 + i, from, from + (size[i] - 1) * stride[i] + 1, stride[i]);
  const taps = range(kh * kw).map((tap) => {
    const rows = cut(channelsFirst, 0, Math.floor(tap / kw) * dilation[0]);
    return cut(rows, 1, (tap % kw) * dilation[1]);
  });
  const patches = stack(taps, 1).reshape([c * kh * kw, -1]);
  const y = matmul(w.reshape([o, -1]), patches)
    .reshape([o, n, ...size])
    .transpose([1, 0, 2, 3]);
  return bias ? y.add(bias.reshape([o, 1, 1])) : y;
}
