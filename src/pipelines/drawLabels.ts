import type { NdArray } from '../array/index.js';
import type { ImageDistribution } from '../models/index.js';
import type { Generator } from '../random/index.js';
import { type CompileOptions, compile, softplus, type Tensor } from '../tensor/index.js';

/**
 * Draws a label for each picture of which a part is known, from p(y | known) of a joint model: to complete pictures with
 * labels drawn from p(y) would ignore what is known. Exact where the known pixels come first in the model's order.
 * @param images [N, C, H, W] of 0, 1 and -1 (open).
 * @throws RangeError where the model knows no labels.
 */
export async function drawLabels(
  distribution: ImageDistribution,
  images: NdArray<'float32'>,
  rng: Generator,
  how?: CompileOptions,
): Promise<number[]> {
  const { classes } = distribution.config;
  const [count] = images.shape;
  const logs = compile(
    (known: Tensor) => {
      const x = known.maximum(0);
      const logits = distribution.model.forward(x);
      return x.mul(logits).sub(softplus(logits)).mul(known.greaterEqual(0).cast('float32')).sum([1, 2, 3]);
    },
    { freeze: true, ...how },
  );
  try {
    const each: ArrayLike<number>[] = [];
    for (let y = 0; y < Math.max(1, classes); y++)
      each.push((await logs(distribution.known(images, new Array<number>(count).fill(y)))).data as Float32Array);
    const draws = rng.rand([count]).data;
    return Array.from(draws, (u, n) =>
      categorical(
        each.map((log) => log[n]),
        u,
      ),
    );
  } finally {
    await logs.release();
  }
}

/** @param u in [0, 1). */
function categorical(logs: readonly number[], u: number): number {
  const most = Math.max(...logs);
  const shares = logs.map((log) => Math.exp(log - most));
  let left = u * shares.reduce((a, b) => a + b);
  const found = shares.findIndex((share) => {
    left -= share;
    return left < 0;
  });
  return found < 0 ? logs.indexOf(most) : found;
}
