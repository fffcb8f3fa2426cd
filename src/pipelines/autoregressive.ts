import { type NdArray, ndarray } from '../array/index.js';
import type { AutoregressiveModel } from '../models/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';

export interface AutoregressiveSampleOptions {
  readonly model: AutoregressiveModel;
  /** How many images to draw; default as many as `given`. */
  readonly count?: number;
  /** Images to complete, [N, ...shape]: 0 and 1 stay, what is below 0 is drawn. */
  readonly given?: NdArray<'float32'>;
  readonly seed?: number | Generator;
  /** Each variable takes its likelier value, in place of a random one. */
  readonly greedy?: boolean;
  /** Divides the logits: below 1 plays safe; default 1. */
  readonly temperature?: number;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
  readonly onStep?: (done: number, total: number) => void;
}

/**
 * Draws images one variable at a time, in the model's order, or completes some. One compiled pass serves all variables.
 * @returns [N, ...shape] of 0 and 1.
 * @throws RangeError for images of another shape, or a temperature that is not positive; AbortError.
 */
export async function sampleAutoregressive(options: AutoregressiveSampleOptions): Promise<NdArray<'float32'>> {
  const { model, given, greedy = false, temperature = 1, seed = 0, signal, onStep } = options;
  const { shape, order } = model;
  const count = given?.shape[0] ?? options.count ?? 1;
  if (given && `${given.shape.slice(1)}` !== `${shape}`)
    throw new RangeError(`given: images [${given.shape}], expected [N, ${shape.join(', ')}]`);
  if (!(temperature > 0)) throw new RangeError(`temperature ${temperature}: expected more than 0`);
  const rng = seed instanceof Generator ? seed : new Generator(seed);
  const size = order.length;
  const open = given ? given.data : new Float32Array(count * size).fill(-1);
  const images = ndarray(
    open.map((x) => (x < 0 ? 0 : x)),
    [count, ...shape],
  );
  const logits = compile((x: Tensor) => model.forward(x), { freeze: true, ...options.compile });
  try {
    for (const [done, at] of order.entries()) {
      signal?.throwIfAborted();
      const rows = Array.from({ length: count }, (_, n) => n * size + at).filter((i) => open[i] < 0);
      if (rows.length > 0) {
        const answer = (await logits(images)).data as Float32Array;
        const draws = greedy ? undefined : rng.rand([rows.length]).data;
        for (const [k, i] of rows.entries())
          images.data[i] = Number((draws ? draws[k] : 0.5) < 1 / (1 + Math.exp(-answer[i] / temperature)));
      }
      onStep?.(done + 1, size);
    }
  } finally {
    await logits.release();
  }
  return images;
}
