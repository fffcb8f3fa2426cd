import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import type { Dataset } from './dataset.js';

/** How far training has come in its data: the epoch, and how many of its pictures were given out. Plain JSON. */
export interface DataPosition {
  readonly epoch: number;
  readonly index: number;
}

export interface Batch {
  /** [B, C, H, W] in [-1, 1]. */
  readonly images: NdArray<'float32'>;
  /** [B], 0..classes-1. */
  readonly labels: NdArray<'int32'>;
  /** Which pictures of the data set these are. */
  readonly indices: Int32Array;
  /** Where to go on after this batch. */
  readonly next: DataPosition;
}

export interface BatchOptions {
  batch: number;
  /** The order and the flips depend on the seed and the epoch alone. */
  seed?: number;
  /** True by default. */
  shuffle?: boolean;
  /** Leaves out an epoch's last batch when it is not full; true by default. */
  dropLast?: boolean;
  /** Mirrors every picture with probability 1/2, drawn anew each epoch. */
  flip?: boolean;
  /** Where to begin, as `next` of an earlier batch. */
  position?: DataPosition;
  /** Ends before this epoch; never by default. */
  epochs?: number;
  /** Batches read ahead while one is worked on; 2 by default. */
  prefetch?: number;
}

/** Mirrors a picture [C, H, W] left to right, in place. */
function mirror(images: Float32Array, offset: number, rows: number, width: number): void {
  for (let row = 0; row < rows; row++) images.subarray(offset + row * width, offset + (row + 1) * width).reverse();
}

/**
 * Collects pictures by their positions in the data set.
 * @param flips true for those to be mirrored.
 */
export async function readBatch(
  dataset: Dataset,
  indices: Int32Array,
  flips?: ArrayLike<boolean | number>,
): Promise<Pick<Batch, 'images' | 'labels' | 'indices'>> {
  const [channels, height, width] = dataset.shape;
  const size = channels * height * width;
  const images = new Float32Array(indices.length * size);
  const pending: Promise<void>[] = [];
  for (const [at, i] of indices.entries()) {
    const filled = dataset.fill(i, images, at * size);
    const finish = (): void => {
      if (flips?.[at]) mirror(images, at * size, channels * height, width);
    };
    if (filled) pending.push(filled.then(finish));
    else finish();
  }
  await Promise.all(pending);
  const labels = Int32Array.from(indices, (i) => dataset.label(i));
  return {
    images: ndarray(images, [indices.length, ...dataset.shape]),
    labels: ndarray(labels, [indices.length], 'int32'),
    indices,
  };
}

/** The order of one epoch and which of its pictures are mirrored. */
function planEpoch(length: number, epoch: number, { seed = 0, shuffle = true, flip = false }: BatchOptions) {
  // A generator of its own for each epoch: a run can be taken up anywhere without replaying what came before.
  const rng = new Generator((Math.imul(seed, 0x9e3779b1) ^ Math.imul(epoch + 1, 0x85ebca6b)) >>> 0);
  const order = shuffle ? rng.randperm(length) : Int32Array.from({ length }, (_, i) => i);
  return { order, flips: flip ? Uint8Array.from(order, () => rng.random() & 1) : undefined };
}

/** Which pictures make up a batch. */
export interface BatchIndices {
  readonly indices: Int32Array;
  /** Where `flip` is asked for: 1 for those to be mirrored. */
  readonly flips?: Uint8Array;
  readonly next: DataPosition;
}

/**
 * The pictures of one batch after another, as {@link batches} gives them out.
 * @throws RangeError when there are fewer pictures than one batch, or the position lies outside the data set.
 */
export function* indexBatches(name: string, length: number, options: BatchOptions): IterableIterator<BatchIndices> {
  const { batch, dropLast = true, epochs = Number.POSITIVE_INFINITY, position = { epoch: 0, index: 0 } } = options;
  if (!Number.isInteger(batch) || batch < 1) throw new RangeError(`batches: batch ${batch}, expected 1, 2 ...`);
  if (length === 0 || (dropLast && length < batch))
    throw new RangeError(`batches: data set '${name}' has ${length} images, fewer than one batch of ${batch}`);
  if (!(position.index >= 0 && position.index <= length && position.epoch >= 0))
    throw new RangeError(`batches: position ${JSON.stringify(position)} is not in '${name}' of ${length} images`);
  for (let { epoch, index } = position; epoch < epochs; epoch++, index = 0) {
    const { order, flips } = planEpoch(length, epoch, options);
    while (index < length && !(dropLast && index + batch > length)) {
      const end = Math.min(index + batch, length);
      yield { indices: order.slice(index, end), flips: flips?.slice(index, end), next: { epoch, index: end } };
      index = end;
    }
  }
}

/** Starts reading one batch after another, as they are asked for. */
function* readings(dataset: Dataset, options: BatchOptions): IterableIterator<Promise<Batch>> {
  for (const { indices, flips, next } of indexBatches(dataset.name, dataset.length, options)) {
    const reading = readBatch(dataset, indices, flips).then((read) => ({ ...read, next }));
    reading.catch(() => undefined); // thrown where it is awaited, not before as an unhandled rejection
    yield reading;
  }
}

/**
 * Goes through a data set in batches, epoch after epoch, reading ahead. Begun at the `next` of any batch, with the same
 * options, it gives exactly the batches that followed it.
 * @throws RangeError when there are fewer pictures than one batch, or the position lies outside the data set.
 */
export async function* batches(dataset: Dataset, options: BatchOptions): AsyncGenerator<Batch, void, undefined> {
  const { prefetch = 2 } = options;
  const ahead: Promise<Batch>[] = [];
  for (const reading of readings(dataset, options)) {
    ahead.push(reading);
    if (ahead.length > prefetch) yield await ahead.shift()!;
  }
  for (const reading of ahead) yield await reading;
}
