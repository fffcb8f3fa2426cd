import { type Generator, normalWeights } from '../random/index.js';
import { gather, type Tensor, type Variable } from '../tensor/index.js';
import { Module, parameter } from './module.js';

/** A table of vectors: integer indices [...] to [..., dim]. Starts from standard normal numbers. */
export class Embedding extends Module {
  /** [count, dim] */
  readonly weight: Variable;

  constructor(count: number, dim: number, rng: Generator) {
    super();
    this.weight = parameter(normalWeights(rng, [count, dim]));
  }

  forward(indices: Tensor): Tensor {
    return gather(this.weight, indices);
  }
}
