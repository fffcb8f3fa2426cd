import type { Generator } from '../random/index.js';
import { constant, rand, type Tensor, where } from '../tensor/index.js';
import { Embedding } from './embedding.js';
import { Module, trainingGenerator } from './module.js';

/**
 * Class labels (integers [N]) to vectors [N, hiddenSize]. With a dropout probability the table has one row more,
 * the null class, which stands for "no condition" (Ho and Salimans 2021).
 * Unlike diffusers' it never drops labels by itself, as the blocks of a model would drop different ones:
 * drop them once with {@link dropLabels} before the model.
 */
export class LabelEmbedding extends Module {
  readonly embeddingTable: Embedding;

  constructor(
    readonly numClasses: number,
    hiddenSize: number,
    readonly dropoutProb: number,
    rng: Generator,
  ) {
    super();
    this.embeddingTable = new Embedding(numClasses + (dropoutProb > 0 ? 1 : 0), hiddenSize, rng);
  }

  /** @param drop bool [N]: labels to replace by the null class. @throws Error when the table has no null class. */
  forward(labels: Tensor, drop?: Tensor): Tensor {
    if (drop && !(this.dropoutProb > 0)) throw new Error('LabelEmbedding: without dropoutProb there is no null class');
    const kept = drop ? where(drop, constant(this.numClasses, labels.dtype), labels) : labels;
    return this.embeddingTable.forward(kept);
  }
}

/** Replaces labels [N] by the null class with probability p, drawn from the generator of the training step. */
export function dropLabels(labels: Tensor, nullClass: number, p: number): Tensor {
  const drop = rand(labels.shape, trainingGenerator('dropLabels')).less(p);
  return where(drop, constant(nullClass, labels.dtype), labels);
}
