import { type NdArray, ndarray } from '../array/index.js';
import { checkPixels, dequantize, initializingActNorm } from '../models/index.js';
import { inTraining, type Module } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { type Compiled, type CompileOptions, compile, gradients, rand, type Tensor } from '../tensor/index.js';
import { adamW, clipGradients, type Optimizer } from './optimizer.js';

/** A density that tells log p(x), [N], of x [N, ...]. */
export interface Density extends Module {
  logProb(x: Tensor): Tensor;
}

export interface FlowTrainingOptions {
  readonly model: Density;
  /** Batches are images in 0..1 of 256 levels: noise fills the levels, anew at each step. Default false. */
  readonly images?: boolean;
  /** Default: AdamW without decay. */
  readonly optimizer?: Optimizer;
  /** Default 1e-3. */
  readonly learningRate?: number;
  /** Gradients are scaled down to this joint norm; default: they are not. */
  readonly clipNorm?: number;
  readonly seed?: number;
  readonly compile?: CompileOptions;
}

type Step = Compiled<[Tensor, readonly Tensor[]], { loss: Tensor; norm: Tensor }>;

/** Maximum likelihood: each step lowers the mean of -log p(x) over a batch. */
export class FlowTraining {
  readonly #step: Step;
  readonly #optimizer: Optimizer;
  readonly #filled: (x: Tensor) => Tensor;
  #done = 0;

  constructor(private readonly options: FlowTrainingOptions) {
    const { model, images = false, clipNorm, seed = 0 } = options;
    const rng = new Generator(seed);
    const named = model.namedParameters();
    const parameters = [...named.values()];
    this.#optimizer = options.optimizer ?? adamW(named, { weightDecay: 0 });
    this.#filled = (x) => (images ? dequantize(x, rand(x.shape, rng)) : x);
    this.#step = compile((batch: Tensor, numbers: readonly Tensor[]) => {
      const loss = inTraining(() => model.logProb(this.#filled(batch)), rng)
        .mean()
        .neg();
      const { clipped, norm } = clipGradients(gradients(loss, parameters), clipNorm);
      this.#optimizer.update(clipped, numbers);
      return { loss, norm };
    }, options.compile);
  }

  /** Starts actnorms from a first batch; call it before the first step. */
  async start(batch: NdArray): Promise<void> {
    this.#check(batch);
    const { model } = this.options;
    const first = compile(
      (x: Tensor) => initializingActNorm(() => model.logProb(this.#filled(x))),
      this.options.compile,
    );
    try {
      await first(batch);
    } finally {
      await first.release();
    }
  }

  /**
   * @param batch [N, ...]. @returns the batch's mean of -log p(x) in nats, and the gradients' joint norm.
   * @throws RangeError for pixels outside 0..1; Error when the loss is not finite.
   */
  async step(
    batch: NdArray,
    learningRate = this.options.learningRate ?? 1e-3,
  ): Promise<{ loss: number; norm: number }> {
    this.#check(batch);
    this.#done++;
    const numbers = this.#optimizer.hyperparameters(this.#done, learningRate).map((x) => ndarray([x], []));
    const { loss, norm } = await this.#step(batch, numbers);
    const value = Number(loss.data[0]);
    if (!Number.isFinite(value)) throw new Error(`flow training: the loss of step ${this.#done} is ${value}`);
    return { loss: value, norm: Number(norm.data[0]) };
  }

  async release(): Promise<void> {
    await this.#step.release();
  }

  #check(batch: NdArray): void {
    if (this.options.images) checkPixels('flow training', batch);
  }
}
