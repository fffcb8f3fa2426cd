import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { arrayDataset, batches } from '../data/index.js';
import { Generator } from '../random/index.js';
import { coupledNoise, learningBatches } from './coupling.js';

const rng = new Generator(3);
const labels = [0, 1, 0, 0, 1, 2];
const images = rng.randn([6, 1, 2, 2]);
const noise = rng.randn([6, 1, 2, 2]);
const row = ({ data }: NdArray, i: number) => [...data.subarray(4 * i, 4 * i + 4)].map(Number);
const cost = (of: NdArray<'float32'>) =>
  of.data.reduce((sum: number, x, i) => sum + (Number(x) - images.data[i]) ** 2, 0);

describe('coupledNoise', () => {
  const coupled = coupledNoise(noise, images, labels);

  it('gives each image noise of its class, none twice', () => {
    for (const label of [0, 1, 2]) {
      const members = labels.flatMap((own, i) => (own === label ? [i] : []));
      const sorted = (of: NdArray) => members.map((i) => row(of, i)).sort((a, b) => a[0] - b[0]);
      expect(sorted(coupled)).toEqual(sorted(noise));
    }
  });

  it('makes the pairs of least distance', () => {
    expect(cost(coupled)).toBeLessThan(cost(noise));
    for (const [a, b] of [
      [0, 2],
      [0, 3],
      [2, 3],
      [1, 4],
    ]) {
      const swapped = coupled.data.slice();
      swapped.set(row(coupled, a), 4 * b);
      swapped.set(row(coupled, b), 4 * a);
      expect(cost(ndarray(swapped, coupled.shape))).toBeGreaterThan(cost(coupled));
    }
  });
});

describe('learningBatches', () => {
  const dataset = arrayDataset(rng.uniform([12, 1, 2, 2], -1, 1), ndarray([...labels, ...labels], [12], 'int32'));
  const drawn = async (coupling: 'random' | 'ot', seed: number, position = { epoch: 0, index: 0 }) => {
    const list: (NdArray | undefined)[] = [];
    const options = { batch: 4, seed: 1, epochs: 2, position };
    for await (const { arrays } of learningBatches(batches(dataset, options), { coupling, seed }))
      list.push((arrays as Record<string, NdArray>).noise);
    return list;
  };

  it('draws the noise of a place in the data from the seed alone', async () => {
    const all = await drawn('ot', 5);
    expect(all).toHaveLength(6);
    expect(new Set(all.map((noise) => noise?.data[0])).size).toBe(6);
    expect(await drawn('ot', 5, { epoch: 1, index: 4 })).toEqual(all.slice(4));
    expect(await drawn('ot', 6)).not.toEqual(all);
    expect(await drawn('random', 5)).toEqual(Array(6).fill(undefined));
  });
});
