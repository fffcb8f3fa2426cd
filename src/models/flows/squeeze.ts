import { ndarray } from '../../array/index.js';
import { Module } from '../../nn/index.js';
import { concat, constant, stack, type Tensor } from '../../tensor/index.js';
import { checkInput, type Flow, type FromLatent, noLogDet, type ToLatent } from './flow.js';

/** @throws RangeError for another rank, or odd height or width. */
function checkSides(x: Tensor): void {
  checkInput('squeeze', x, 4);
  if (x.shape[2] % 2 || x.shape[3] % 2)
    throw new RangeError(`squeeze: images of ${x.shape[2]} x ${x.shape[3]}, expected even sides`);
}

/** @throws RangeError for another rank, or channels that 4 does not divide. */
function checkChannels(x: Tensor): void {
  checkInput('unsqueeze', x, 4);
  if (x.shape[1] % 4) throw new RangeError(`unsqueeze: ${x.shape[1]} channels, expected a multiple of 4`);
}

/** Each 2 x 2 block of pixels becomes channels, in the order (c, row, column): [N, C, H, W] to [N, 4C, H/2, W/2]. */
export function squeeze2x2(x: Tensor): Tensor {
  checkSides(x);
  const [n, c, h, w] = x.shape;
  return x
    .reshape([n, c, h / 2, 2, w / 2, 2])
    .transpose([0, 1, 3, 5, 2, 4])
    .reshape([n, 4 * c, h / 2, w / 2]);
}

/** Undoes {@link squeeze2x2}. */
export function unsqueeze2x2(x: Tensor): Tensor {
  checkChannels(x);
  const [n, c, h, w] = x.shape;
  return x
    .reshape([n, c / 4, 2, 2, h, w])
    .transpose([0, 1, 4, 2, 5, 3])
    .reshape([n, c / 4, 2 * h, 2 * w]);
}

/** Row and column of a block's pixels, diagonals together, as RealNVP splits them (figure 3). */
const corners = [
  [0, 0],
  [1, 1],
  [0, 1],
  [1, 0],
] as const;

/** Like {@link squeeze2x2}, with all channels of a block's one corner before those of the next: halves are diagonals. */
export function squeezeDiagonals(x: Tensor): Tensor {
  checkSides(x);
  const [, , h, w] = x.shape;
  return concat(
    corners.map(([row, column]) => x.slice(2, row, h, 2).slice(3, column, w, 2)),
    1,
  );
}

/** Undoes {@link squeezeDiagonals}. */
export function unsqueezeDiagonals(x: Tensor): Tensor {
  checkChannels(x);
  const [n, channels, h, w] = x.shape;
  const c = channels / 4;
  const corner = (k: number): Tensor => x.slice(1, k * c, (k + 1) * c);
  const rows = [stack([corner(0), corner(2)], 4), stack([corner(3), corner(1)], 4)];
  return stack(
    rows.map((row) => row.reshape([n, c, h, 2 * w])),
    3,
  ).reshape([n, c, 2 * h, 2 * w]);
}

/** {@link squeeze2x2} as a flow. */
export class Squeeze extends Module implements Flow {
  forward(x: Tensor): ToLatent {
    return { z: squeeze2x2(x), logDet: noLogDet(x) };
  }

  inverse(z: Tensor): FromLatent {
    return { x: unsqueeze2x2(z), logDet: noLogDet(z) };
  }
}

/** [1, 1, H, W] of 0 and 1, no two neighbours the same; 0 in the first corner, unless `reverse`. */
export const checkerboardMask = (height: number, width: number, reverse = false): Tensor =>
  constant(
    ndarray(
      Float32Array.from(
        { length: height * width },
        (_, k) => (Math.floor(k / width) + (k % width) + Number(reverse)) % 2,
      ),
      [1, 1, height, width],
    ),
  );
