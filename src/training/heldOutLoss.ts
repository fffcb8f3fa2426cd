import { batches, type Dataset, subset } from '../data/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';
import type { Objective } from './objective.js';
import type { NoisyImageModel } from './step.js';

export interface HeldOutLossOptions {
  /** How many pictures, the data set's first; default 1000. */
  readonly count?: number;
  /** Default 50; the noise depends on it. */
  readonly batch?: number;
  /** Of noise and noise levels; default 0. */
  readonly seed?: number;
  readonly compile?: CompileOptions;
}

/**
 * A model's mean loss over pictures that it was not trained on. Noise and noise levels come from the seed alone, so that
 * models are compared on the very same task, where differences far below the loss's own spread count.
 * Labels are never dropped.
 * @throws RangeError for a data set with fewer pictures than a batch.
 */
export async function heldOutLoss(
  model: NoisyImageModel,
  objective: Objective,
  dataset: Dataset,
  { count = 1000, batch = 50, seed = 0, compile: options }: HeldOutLossOptions = {},
): Promise<number> {
  if (dataset.length < batch)
    throw new RangeError(`heldOutLoss: ${dataset.name} has ${dataset.length} pictures, expected at least ${batch}`);
  const rng = new Generator(seed);
  const lossOf = compile((images: Tensor, labels: Tensor) => {
    const noisy = objective.noisy(images, rng, labels);
    const known = model.nullClass === undefined ? undefined : labels;
    return objective.loss(model.forward(noisy.x, noisy.timestep, known), noisy);
  }, options);
  let [sum, seen] = [0, 0];
  try {
    for await (const { images, labels } of batches(subset(dataset, count), { batch, shuffle: false, epochs: 1 })) {
      sum += Number((await lossOf(images, labels)).data[0]);
      seen++;
    }
  } finally {
    await lossOf.release();
  }
  return sum / seen;
}
