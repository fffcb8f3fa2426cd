import type { Tensor } from '../tensor/index.js';
import { Module } from './module.js';

/** x / max(|x|₂, eps) over the last axis: unit vectors, as cosine attention compares them. No weights. */
export class L2Norm extends Module {
  constructor(readonly eps = 1e-12) {
    super();
  }

  forward(x: Tensor): Tensor {
    // The root of the larger square: its gradient at x = 0 is 0, as PyTorch's is, not infinite.
    return x.div(
      x
        .square()
        .sum(-1, true)
        .maximum(this.eps ** 2)
        .sqrt(),
    );
  }
}
