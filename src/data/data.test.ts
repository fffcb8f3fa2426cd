import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { type Batch, type BatchOptions, batches } from './batches.js';
import { arrayDataset, type Dataset, subset } from './dataset.js';
import { resized } from './resize.js';

const pictureOf = async (dataset: Dataset, i: number): Promise<number[]> => {
  const out = new Float32Array(dataset.shape[0] * dataset.shape[1] * dataset.shape[2]);
  await dataset.fill(i, out, 0);
  return [...out];
};
const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe('arrayDataset', () => {
  it('takes bytes and floats in every layout', async () => {
    const bytes = arrayDataset(ndarray([0, 255, 51, 204], [2, 1, 2], 'uint8'), ndarray([1, 0], [2], 'int64'));
    expect(bytes).toMatchObject({ length: 2, shape: [1, 1, 2], classNames: ['0', '1'] });
    expect(await pictureOf(bytes, 1)).toEqual([Math.fround(-0.6), Math.fround(0.6)]);
    expect([bytes.label(0), bytes.label(1)]).toEqual([1, 0]);
    const planes = arrayDataset(ndarray([1, 0.5, 0, -1, 0.25, 0.75], [1, 3, 1, 2]));
    const mixed = arrayDataset(ndarray([1, 0, 0.25, 0.5, -1, 0.75], [1, 1, 2, 3]), undefined, { layout: 'NHWC' });
    expect(mixed.shape).toEqual(planes.shape);
    expect(await pictureOf(mixed, 0)).toEqual(await pictureOf(planes, 0));
  });

  it.each<[() => Dataset, RegExp]>([
    [() => arrayDataset(ndarray([0, 0])), /images \[2\], expected \[N, H, W\]/],
    [() => arrayDataset(ndarray([], [0, 1, 1])), /none of them 0/],
    [() => arrayDataset(ndarray(count(9), [1, 3, 1, 3], 'uint8')), /name the layout/],
    [() => arrayDataset(ndarray([0, 2], [1, 1, 2])), /pixel 2 at position 1, floats must be in -1..1/],
    [() => arrayDataset(ndarray([Number.NaN], [1, 1, 1])), /pixel NaN/],
    [() => arrayDataset(ndarray([1], [1, 1, 1], 'int32')), /images of int32, expected uint8/],
    [
      () => arrayDataset(ndarray([0], [1, 1, 1]), ndarray([1, 2], [2], 'int32')),
      /labels int32 \[2\], expected one integer/,
    ],
    [() => arrayDataset(ndarray([0], [1, 1, 1]), ndarray([0.5])), /labels float32/],
    [
      () => arrayDataset(ndarray([0], [1, 1, 1]), ndarray([3], [1], 'uint8'), { classNames: ['a'] }),
      /label 3 out of range 0..0/,
    ],
    [
      () => arrayDataset(ndarray([0], [1, 1, 1]), ndarray([2e9], [1], 'int32')),
      /label 2000000000 out of range 0..65535/,
    ],
  ])('rejects what it cannot show: %#', (make, message) => {
    expect(make).toThrow(message);
  });
});

describe('subset and resized', () => {
  const dataset = arrayDataset(ndarray(count(32), [2, 4, 4], 'uint8'), ndarray([3, 1], [2], 'uint8'));

  it('takes a part', async () => {
    expect(subset(dataset, 1).length).toBe(1);
    const second = subset(dataset, [1]);
    expect([second.label(0), await pictureOf(second, 0)]).toEqual([1, await pictureOf(dataset, 1)]);
    expect(() => subset(dataset, [2])).toThrow(/picture 2 out of range 0..1/);
  });

  it('scales as Pillow does with BILINEAR', async () => {
    // PIL.Image.fromarray(arange(16).reshape(4, 4) as mode F).resize((n, n), BILINEAR)
    const bytes = (await pictureOf(resized(dataset, 2), 0)).map((x) => (x + 1) * 127.5);
    for (const [i, expected] of [3.5714, 5.1429, 9.8571, 11.4286].entries()) expect(bytes[i]).toBeCloseTo(expected, 3);
    const larger = (await pictureOf(resized(dataset, 8), 0)).map((x) => (x + 1) * 127.5);
    for (const [i, expected] of [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3].entries())
      expect(larger[i]).toBeCloseTo(expected, 3);
    expect(resized(dataset, 4)).toBe(dataset);
  });

  it('takes the middle square', async () => {
    const wide = arrayDataset(ndarray([0, 10, 20, 30], [1, 1, 4], 'uint8'));
    expect(((await pictureOf(resized(wide, 1), 0))[0] + 1) * 127.5).toBeCloseTo(10, 3);
  });
});

describe('batches', () => {
  const dataset = arrayDataset(ndarray(count(20), [10, 1, 2], 'uint8'), ndarray(count(10), [10], 'uint8'));
  async function take(n: number, options: BatchOptions, data = dataset): Promise<Batch[]> {
    const taken: Batch[] = [];
    for await (const batch of batches(data, options)) if (taken.push(batch) === n) break;
    return taken;
  }
  const indices = (taken: Batch[]): number[][] => taken.map((batch) => [...batch.indices]);

  it('goes through every picture once an epoch, each epoch in another order', async () => {
    const taken = await take(6, { batch: 4, dropLast: false, seed: 1 });
    expect(indices(taken).map((batch) => batch.length)).toEqual([4, 4, 2, 4, 4, 2]);
    const epochs = [indices(taken.slice(0, 3)).flat(), indices(taken.slice(3)).flat()];
    for (const epoch of epochs) expect(epoch.toSorted((a, b) => a - b)).toEqual(count(10));
    expect(epochs[0]).not.toEqual(epochs[1]);
    expect(indices(await take(6, { batch: 4, dropLast: false, seed: 2 }))).not.toEqual(indices(taken));
    expect([...taken[0].labels.data]).toEqual(indices(taken)[0]);
    expect(taken[0].images.shape).toEqual([4, 1, 1, 2]);
  });

  it('goes on exactly where it was left, after JSON', async () => {
    const options = { batch: 3, seed: 5, flip: true };
    const whole = await take(8, options);
    for (let k = 1; k < 8; k++) {
      const position = JSON.parse(JSON.stringify(whole[k - 1].next));
      expect(await take(8 - k, { ...options, position })).toEqual(whole.slice(k));
    }
  });

  it('drops the last batch, or ends after some epochs', async () => {
    expect(indices(await take(4, { batch: 4, shuffle: false }))).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
      [0, 1, 2, 3],
      [4, 5, 6, 7],
    ]);
    const once = await take(99, { batch: 4, shuffle: false, dropLast: false, epochs: 1 });
    expect(indices(once).flat()).toEqual(count(10));
    expect(once.at(-1)?.next).toEqual({ epoch: 0, index: 10 });
  });

  it('mirrors about half of the pictures', async () => {
    const taken = await take(100, { batch: 10, flip: true });
    const mirrored = taken.flatMap(({ images: { data } }) => count(10).filter((i) => data[2 * i] > data[2 * i + 1]));
    expect(Math.abs(mirrored.length - 500)).toBeLessThan(60);
  });

  it('waits for pictures that come later and passes their errors on', async () => {
    const slow: Dataset = {
      ...dataset,
      fill: async (i, out, offset) => {
        await new Promise((resolve) => setTimeout(resolve, 10 - i));
        if (i === 7) throw new Error('picture 7 is broken');
        await dataset.fill(i, out, offset);
      },
    };
    const options = { batch: 2, shuffle: false };
    expect((await take(3, options, slow)).map((batch) => batch.images)).toEqual(
      (await take(3, options)).map((batch) => batch.images),
    );
    await expect(take(5, options, slow)).rejects.toThrow('picture 7 is broken');
  });

  it.each<[BatchOptions, RegExp]>([
    [{ batch: 0 }, /batch 0, expected 1, 2/],
    [{ batch: 11 }, /has 10 images, fewer than one batch of 11/],
    [{ batch: 1, position: { epoch: 0, index: 11 } }, /is not in 'arrays' of 10 images/],
  ])('rejects %j', async (options, message) => {
    await expect(take(1, options)).rejects.toThrow(message);
  });
});
