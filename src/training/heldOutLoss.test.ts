import { expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { arrayDataset } from '../data/index.js';
import { type DiTConditioning, DiTVariant } from '../models/index.js';
import { Generator } from '../random/index.js';
import { heldOutLoss } from './heldOutLoss.js';
import { variancePreserving } from './objective.js';

const rng = new Generator(0);
const dataset = arrayDataset(
  rng.uniform([20, 1, 8, 8], -1, 1),
  ndarray(
    Int32Array.from({ length: 20 }, (_, i) => i % 3),
    [20],
    'int32',
  ),
);
const objective = variancePreserving({ predictionType: 'epsilon' });
const untrained = (conditioning: DiTConditioning) =>
  new DiTVariant(
    { inputSize: 8, patchSize: 4, inChannels: 1, hiddenSize: 8, depth: 1, numHeads: 1, numClasses: 3, conditioning },
    new Generator(1),
  );

test('models are asked about the same noise: those that predict nothing lose its mean square, exactly alike', async () => {
  const options = { count: 20, batch: 10, compile: { threads: 1 } };
  const first = await heldOutLoss(untrained('adaln'), objective, dataset, options);
  expect(first).toBeGreaterThan(0.9);
  expect(first).toBeLessThan(1.1);
  expect(await heldOutLoss(untrained('in-context'), objective, dataset, options)).toBe(first);
  expect(await heldOutLoss(untrained('adaln'), objective, dataset, { ...options, seed: 1 })).not.toBe(first);
});

test('too few pictures are an error', async () => {
  await expect(heldOutLoss(untrained('adaln'), objective, dataset)).rejects.toThrow(
    'heldOutLoss: arrays has 20 pictures, expected at least 50',
  );
});
