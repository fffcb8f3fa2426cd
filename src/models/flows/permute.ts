import { ndarray } from '../../array/index.js';
import { buffer, Module } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { concat, gather, type Tensor, type Variable } from '../../tensor/index.js';
import { type Flow, type FromLatent, noLogDet, type ToLatent } from './flow.js';

/** Changes the halves of axis 1 over, so that the next coupling changes what this one kept. */
export class SwapHalves extends Module implements Flow {
  forward(x: Tensor): ToLatent {
    return { z: swapped(x, Math.ceil(x.shape[1] / 2)), logDet: noLogDet(x) };
  }

  inverse(z: Tensor): FromLatent {
    return { x: swapped(z, Math.floor(z.shape[1] / 2)), logDet: noLogDet(z) };
  }
}

const swapped = (x: Tensor, at: number): Tensor => concat([x.slice(1, at, x.shape[1]), x.slice(1, 0, at)], 1);

/** A fixed random order of axis 1: x[i] = z[perm[i]]. */
export class Shuffle extends Module implements Flow {
  /** int64 [C] */
  readonly perm: Variable;
  /** int64 [C] */
  readonly invPerm: Variable;

  constructor(channels: number, rng: Generator) {
    super();
    const perm = rng.randperm(channels);
    const places = [...perm.keys()].sort((a, b) => perm[a] - perm[b]);
    this.perm = buffer(ndarray([...perm], [channels], 'int64'));
    this.invPerm = buffer(ndarray(places, [channels], 'int64'));
  }

  forward(x: Tensor): ToLatent {
    return { z: gather(x, this.invPerm, 1), logDet: noLogDet(x) };
  }

  inverse(z: Tensor): FromLatent {
    return { x: gather(z, this.perm, 1), logDet: noLogDet(z) };
  }
}
