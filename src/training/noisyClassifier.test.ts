import { expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { arrayDataset, batches } from '../data/index.js';
import { EncoderUNet } from '../models/index.js';
import { Generator } from '../random/index.js';
import { trainConfig } from './config.js';
import { accuracyByNoise, checkClassifierConfig, processOf, TrainingSession } from './index.js';

const rng = new Generator(0);
const n = 64;
/** Class 0 is bright on the left, class 1 above. */
const labels = Array.from({ length: n }, (_, i) => i % 2);
const pixels = rng.rand([n, 1, 8, 8]);
for (const [i, label] of labels.entries())
  for (let y = 0; y < 8; y++)
    for (let x = 0; x < 8; x++) pixels.data[i * 64 + y * 8 + x] *= (label === 0 ? x : y) < 4 ? 1 : -1;
const dataset = arrayDataset(pixels, ndarray(labels, [n], 'int32'));

const options = { model: EncoderUNet.className, data: 'toy', steps: 60, batch: 16, warmup: 0, learningRate: 1e-2 };
const small = {
  imageSize: 8,
  inChannels: 1,
  outChannels: 2,
  modelChannels: 8,
  numResBlocks: 1,
  channelMult: [1],
  normGroups: 4,
};

test.each(['epsilon', 'flow'] as const)(
  'learns x_t of a process (%s): well where there is little noise',
  async (predict) => {
    const config = trainConfig.parse({ ...options, predict, emaDecay: 0.9 });
    const model = new EncoderUNet(small, new Generator(1));
    const session = new TrainingSession(model, config);
    const losses: number[] = [];
    for await (const { loss } of session.run(batches(dataset, { batch: 16 }))) losses.push(loss);
    expect(losses[0]).toBeCloseTo(Math.log(2), 5);
    model.loadStateDict(await session.averagedState());
    const result = await accuracyByNoise(model, dataset, processOf(config));
    expect(result.accuracyByTimestep).toHaveLength(10);
    expect(Math.min(...result.accuracyByTimestep.slice(0, 3))).toBeGreaterThan(0.9);
    expect(result.accuracyByTimestep[9]).toBeLessThan(0.9);
    expect(await accuracyByNoise(model, dataset, processOf(config))).toEqual(result);
    const few = await accuracyByNoise(model, dataset, processOf(config), { count: 5 });
    expect(few.accuracyByTimestep.every((share) => share >= 0 && share <= 1)).toBe(true);
    await session.release();
  },
);

test('refuses settings that only a denoiser has', () => {
  const check = (more: object) => () => checkClassifierConfig(trainConfig.parse({ ...options, ...more }));
  expect(check({})).not.toThrow();
  expect(check({ learnVariance: true })).toThrow('learnVariance (true) is for denoisers');
  expect(check({ flowWeighting: 'cosmap' })).toThrow('flowWeighting (cosmap)');
});
