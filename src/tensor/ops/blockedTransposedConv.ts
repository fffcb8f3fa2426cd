import { ndarray } from '../../array/index.js';
import type { Rules } from '../rewrite.js';
import { range } from '../shape.js';
import type { Tensor } from '../tensor.js';
import { type BlockedLayout, blockedConv, everyPixel, unblocked } from './blocked.js';
import { blockedKernel } from './blockedConv.js';
import { type ConvAttrs, type Pair, turnedKernel } from './conv.js';
import { constant } from './leaves.js';
import { matmul } from './linear.js';
import { stack } from './shape.js';
import { convOfDoubled, halvingAttrs, spreadKernel } from './upsampledConv.js';

/**
 * Transposed convolutions with stride 2 as four blocked convolutions: even and odd rows and columns each see every other
 * tap of the kernel.
 */
export function blockedTransposedConvolutions(layout: BlockedLayout): Rules {
  const byParity = (x: Tensor, w: Tensor, { stride, pads, dilation, groups }: ConvAttrs, bias?: Tensor) => {
    const isHalved = String([stride, dilation, groups]) === '2,2,1,1,1';
    const axes = pads.map(([before], i) => [0, 1].map((parity) => tapsOf(parity, w.shape[2 + i], before)));
    const suits = axes.flat().every((axis) => axis.taps.length > 0 && axis.pads.every((p) => p >= 0));
    if (!isHalved || !suits || !layout.fits(x) || w.shape[1] % layout.block) return undefined;
    const image = layout.blocked(x);
    const images = axes[0].map((rows) =>
      axes[1].map((columns) => {
        const kernel = blockedKernel(pickedTaps(w, rows.taps, columns.taps), layout.block);
        return blockedConv(image, kernel, { ...everyPixel, pads: [rows.pads, columns.pads], groups, bias });
      }),
    );
    return unblocked(interleaved(images, layout.block));
  };

  return {
    convTranspose2d([x, w], attrs, { shape }) {
      const isDoubled = shape[2] === 2 * x.shape[2] && shape[3] === 2 * x.shape[3];
      return isDoubled ? byParity(x, w, attrs as ConvAttrs) : undefined;
    },
    upsampledConv2d: ([x, w, bias]) => byParity(x, spreadKernel(w), halvingAttrs, bias) ?? convOfDoubled([x, w, bias]),
  };
}

/** The taps that even (0) or odd (1) places of a result see, from the farthest back, and how far they reach beyond the edges. */
function tapsOf(parity: number, kernel: number, padding: number): { taps: number[]; pads: Pair } {
  const taps = range(kernel)
    .filter((tap) => (tap - parity - padding) % 2 === 0)
    .reverse();
  const reach = (tap: number) => (parity + padding - tap) / 2;
  return { taps, pads: [0 - reach(taps[0]), reach(taps[taps.length - 1])] };
}

/** Of a kernel [C, O, kH, kW] of `convTranspose2d` the one of `conv2d` with these taps only. */
function pickedTaps(w: Tensor, rows: readonly number[], columns: readonly number[]): Tensor {
  const [kh, kw] = w.shape.slice(2);
  const picked = (x: Tensor, tap: (row: number, column: number) => number): Tensor => {
    const [o, c] = x.shape;
    const indices = rows.flatMap((row) => columns.map((column) => tap(row, column)));
    const picks = range(kh * kw).flatMap((at) => indices.map((index) => Number(index === at)));
    // Of the shortest runs a product takes a quarter of Gather's time.
    const taps = matmul(x.reshape([o * c, kh * kw]), constant(ndarray(picks, [kh * kw, indices.length])));
    return taps.reshape([o, c, rows.length, columns.length]);
  };
  // Turning twice would be to copy twice.
  if (w.op.name === 'turnedKernel') return picked(w.inputs[0], (row, column) => (kh - 1 - row) * kw + kw - 1 - column);
  const last = (rows[0] + rows[rows.length - 1]) * kw + columns[0] + columns[columns.length - 1];
  return turnedKernel(picked(w, (row, column) => last - (row * kw + column)));
}

/** Four blocked images, of even and odd rows, and of even and odd columns in them, as one. */
export function interleaved(images: readonly (readonly Tensor[])[], block: number): Tensor {
  const [n, o, height, width] = images[0][0].shape;
  const rows = images.map((columns) =>
    stack(
      columns.map((image) => image.reshape([n, o / block, height, width, block])),
      4,
    ),
  );
  return stack(rows, 3).reshape([n, o, 2 * height, 2 * width]);
}
