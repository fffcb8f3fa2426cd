import { expect, test } from 'vitest';
import { ndarray, zeros } from '../array/index.js';
import { arrayDataset } from '../data/index.js';
import { ImageClassifier } from '../models/index.js';
import { Generator } from '../random/index.js';
import { constant } from '../tensor/index.js';
import { classify, trainClassifier } from './classifier.js';
import { imageQuality } from './imageQuality.js';

const rng = new Generator(0);
const n = 96;
/** Class 0 is bright on the left, class 1 above. */
const labels = Array.from({ length: n }, (_, i) => i % 2);
const pixels = rng.rand([n, 1, 8, 8]);
for (const [i, label] of labels.entries())
  for (let y = 0; y < 8; y++)
    for (let x = 0; x < 8; x++) pixels.data[i * 64 + y * 8 + x] *= (label === 0 ? x : y) < 4 ? 1 : -1;

test('learns to tell two patterns apart, and its features do, too', async () => {
  const classifier = new ImageClassifier(
    {
      numClasses: 2,
      layers: [
        [8, 2],
        [16, 2],
      ],
    },
    new Generator(1),
  );
  const dataset = arrayDataset(pixels, ndarray(labels, [n], 'int32'));
  const losses: number[] = [];
  for await (const { step, steps, loss } of trainClassifier(classifier, dataset, {
    epochs: 8,
    batch: 16,
    learningRate: 2e-2,
    flip: false,
  })) {
    losses.push(loss);
    expect(steps).toBe(48);
    expect(step).toBe(losses.length);
  }
  expect(losses.at(-1)).toBeLessThan(0.3 * losses[0]);
  const result = await classify(classifier, [pixels]);
  expect(result.features.shape).toEqual([n, 16]);
  expect([...result.classes]).toEqual(labels);
  const same = imageQuality(result.features, result, labels);
  expect(same.fid).toBeCloseTo(0, 6);
  expect(same).toMatchObject({ precision: 1, recall: 1, accuracy: 1 });
  const half = {
    ...result,
    features: ndarray(
      result.features.data.map((x) => 2 * x),
      [n, 16],
    ),
  };
  expect(
    imageQuality(
      result.features,
      half,
      labels.map((label) => 1 - label),
    ),
  ).toMatchObject({ accuracy: 0 });
  expect(() => imageQuality(result.features, result, [0])).toThrow('1 labels for 96 pictures');
});

test('refuses pictures of other channels', () => {
  const classifier = new ImageClassifier({}, new Generator(0));
  expect(() => classifier.features(constant(zeros([2, 3, 28, 28])))).toThrow('expected 1 channels');
  expect(() => new ImageClassifier({ layers: [[9, 1]] }, new Generator(0))).toThrow('groups');
});
