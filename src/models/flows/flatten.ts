import { Module } from '../../nn/index.js';
import type { Tensor } from '../../tensor/index.js';
import type { Flow, FromLatent, ToLatent } from './flow.js';

/** A flow of vectors on samples of any shape: [N, ...] as [N, d], in raster order. */
export class Flattened<F extends Flow = Flow> extends Module implements Flow {
  constructor(readonly flow: F) {
    super();
  }

  forward(x: Tensor): ToLatent {
    const { z, logDet } = this.flow.forward(flat(x));
    return { z: z.reshape(x.shape), logDet };
  }

  inverse(z: Tensor): FromLatent {
    const { x, logDet } = this.flow.inverse(flat(z));
    return { x: x.reshape(z.shape), logDet };
  }
}

const flat = (x: Tensor): Tensor => x.reshape([x.shape[0], -1]);
