import { ndarray } from '../../array/index.js';
import { buffer, Module } from '../../nn/index.js';
import type { Generator } from '../../random/index.js';
import { concat, gather, type Tensor, type Variable } from '../../tensor/index.js';
import { checkEven, type Flow, type FromLatent, noLogDet, type ToLatent } from './flow.js';

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

/** The numbers of a sample in reverse order, so that of two autoregressive flows each sees what the other did not. */
export class Reverse extends Module implements Flow {
  forward(x: Tensor): ToLatent {
    return { z: reversed(x), logDet: noLogDet(x) };
  }

  inverse(z: Tensor): FromLatent {
    return { x: reversed(z), logDet: noLogDet(z) };
  }
}

const reversed = (x: Tensor): Tensor => x.shape.slice(1).reduce((y, _, i) => y.flip(i + 1), x);

/**
 * The numbers of a sample with the 1st, 3rd ... before the 2nd, 4th ..., as NICE halves them (Dinh et al. 2014,
 * section 5.1): each half is a picture of its own. @throws RangeError for an odd number of them.
 */
export class EvenOdd extends Module implements Flow {
  forward(x: Tensor): ToLatent {
    return { z: paired(x, false), logDet: noLogDet(x) };
  }

  inverse(z: Tensor): FromLatent {
    return { x: paired(z, true), logDet: noLogDet(z) };
  }
}

function paired(x: Tensor, back: boolean): Tensor {
  const size = x.size / x.shape[0];
  checkEven('EvenOdd', 'numbers', size);
  const pairs = x.reshape(back ? [x.shape[0], 2, size / 2] : [x.shape[0], size / 2, 2]);
  return pairs.transpose([0, 2, 1]).reshape(x.shape);
}
