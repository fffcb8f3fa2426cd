import { mergedWeight } from './blockedWeight.js';
import { BlockedLayout, blockedConv, everyPixel, unblocked } from './ops/blocked.js';
import { interleaved } from './ops/blockedTransposedConv.js';
import { convOfDoubled } from './ops/upsampledConv.js';
import type { Rule } from './rewrite.js';
import { Variable } from './variable.js';

/** Pixels, before they are doubled, from which joining four images costs less than is saved. */
const MANY_PIXELS = 1024;

/**
 * A convolution of doubled pixels, from frozen weights, as four convolutions of the pixels themselves: of the 3x3 that a
 * tap sees, only 2x2 differ, and which taps fall together depends on whether row and column are even.
 * @param block channels of a block in the engine's blocked layout, where it has one.
 */
export function upsampledConvolution(block?: number): Rule {
  const layout = block ? new BlockedLayout(block) : undefined;
  return ([x, w, bias]) => {
    const many = x.shape[0] * x.shape[2] * x.shape[3] >= MANY_PIXELS;
    if (!layout?.fits(x) || !many || !(w instanceof Variable) || w.shape[0] % layout.block)
      return convOfDoubled([x, w, bias]);
    const image = layout.blocked(x);
    const images = [0, 1].map((row) =>
      [0, 1].map((column) => {
        const kernel = mergedWeight(w, layout.block, [row, column]);
        const pads = [
          [1 - row, row],
          [1 - column, column],
        ] as const;
        return blockedConv(image, kernel, { ...everyPixel, pads, bias });
      }),
    );
    return unblocked(interleaved(images, layout.block));
  };
}
