import { rand, type Tensor } from '../tensor/index.js';
import { isTraining, Module, trainingGenerator } from './module.js';

/** Zeroes elements with probability p and scales the others by 1 / (1 - p); in evaluation, the identity. */
export function dropout(x: Tensor, p: number): Tensor {
  if (!isTraining() || p === 0) return x;
  if (p === 1) return x.mul(0);
  const kept = rand(x.shape, trainingGenerator('dropout')).greaterEqual(p).cast('float32');
  return x.mul(kept.mul(1 / (1 - p)));
}

export class Dropout extends Module {
  /** @throws RangeError when p is not a probability. */
  constructor(readonly p: number) {
    super();
    if (!(p >= 0 && p <= 1)) throw new RangeError(`Dropout: probability ${p}, expected 0..1`);
  }

  forward(x: Tensor): Tensor {
    return dropout(x, this.p);
  }
}
