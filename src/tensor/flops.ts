import { reachable } from './graph.js';
import type { Tensor } from './tensor.js';

type Count = (node: Tensor) => number;

/** Multiplications and additions of one node, counted apart. */
const counts: Readonly<Record<string, Count>> = {
  sumOverParts: ({ attrs }) => (attrs.parts as number) * flops(attrs.outputs as readonly Tensor[]),
  matmul: ({ size, inputs: [a], attrs }) => 2 * size * a.shape.at(attrs.transA ? -2 : -1)!,
  attend: ({ size, inputs: [scores] }) => 2 * size * scores.shape.at(-1)!,
  linear: ({ size, inputs: [x] }) => 2 * size * x.shape[1],
  conv2d: ({ size, inputs: [, weight] }) => 2 * size * (weight.size / weight.shape[0]),
  // Four of nine taps see different pixels.
  upsampledConv2d: ({ size, inputs: [x] }) => 2 * size * x.shape[1] * 4,
  conv2dWeight: ({ size, shape: [o], inputs: [, g] }) => 2 * g.size * (size / o),
  convTranspose2d: ({ inputs: [x, weight] }) => 2 * x.size * (weight.size / weight.shape[0]),
};

/** Floating-point operations of the matrix products and convolutions that the tensors need; all else counts as nothing. */
export function flops(outputs: readonly Tensor[]): number {
  return reachable(outputs).reduce((sum, node) => sum + (counts[node.op.name]?.(node) ?? 0), 0);
}

/** How many numbers the graph of an output computes: what its memory grows with. */
export const computedNumbers = (output: Tensor): number =>
  reachable([output]).reduce((sum, x) => sum + (x.inputs.length > 0 ? x.size : 0), 0);
