import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { bernoulliLogLikelihood, ImageDistribution, MADE } from '../models/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { sampleAutoregressive } from './autoregressive.js';
import { drawLabels } from './drawLabels.js';

const model = new MADE([1, 2, 2], { hiddenDims: [12], maskSeed: 1 }, new Generator(4));
const numbers = ({ data }: NdArray) => Array.from(data, Number);

describe('sampleAutoregressive', () => {
  it('draws images as often as the model says', async () => {
    const drawn = numbers(await sampleAutoregressive({ model, count: 4000, seed: 1 }));
    const counts = new Array<number>(16).fill(0);
    for (let n = 0; n < 4000; n++) counts[[0, 1, 2, 3].reduce((code, i) => code + (drawn[4 * n + i] << i), 0)]++;
    const every = ndarray(
      Float32Array.from({ length: 64 }, (_, at) => (Math.floor(at / 4) >> (at % 4)) & 1),
      [16, 1, 2, 2],
    );
    const logs = numbers(await compile((x: Tensor) => bernoulliLogLikelihood(model.forward(x), x))(every));
    // Four standard deviations of a count.
    for (const [code, log] of logs.entries()) {
      const p = Math.exp(log);
      expect(Math.abs(counts[code] / 4000 - p)).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / 4000));
    }
  });

  it('keeps what is given, repeats itself, and takes the likelier value where told to', async () => {
    const given = ndarray([1, -1, 0, -1], [1, 1, 2, 2]);
    const [a, b] = [
      await sampleAutoregressive({ model, given, seed: 3 }),
      await sampleAutoregressive({ model, given, seed: 3 }),
    ];
    expect(numbers(a)).toEqual(numbers(b));
    expect([a.data[0], a.data[2]]).toEqual([1, 0]);
    const greedy = [
      await sampleAutoregressive({ model, given, greedy: true }),
      await sampleAutoregressive({ model, given, greedy: true, seed: 9 }),
    ];
    expect(numbers(greedy[0])).toEqual(numbers(greedy[1]));
  });

  it('refuses what makes no sense', async () => {
    await expect(sampleAutoregressive({ model, temperature: 0 })).rejects.toThrow(
      'temperature 0: expected more than 0',
    );
    await expect(sampleAutoregressive({ model, given: ndarray([1], [1, 1, 1, 1]) })).rejects.toThrow(
      'given: images [1,1,1,1], expected [N, 1, 2, 2]',
    );
    await expect(sampleAutoregressive({ model, signal: AbortSignal.abort() })).rejects.toThrow('aborted');
  });
});

describe('drawLabels', () => {
  const options = { model: 'fvbn', imageShape: [1, 2, 2] as [number, number, number] } as const;

  it('draws as often as p(y | the first pixels)', async () => {
    const joint = new ImageDistribution({ ...options, classes: 2 }, new Generator(3));
    const count = 4000;
    const half = [1, 0, -1, -1];
    const known = ndarray(
      Float32Array.from({ length: 4 * count }, (_, i) => half[i % 4]),
      [count, 1, 2, 2],
    );
    const drawn = await drawLabels(joint, known, new Generator(5));
    // p(y, upper half) is the sum over all lower halves.
    const lower = [0, 0, 0, 1, 1, 0, 1, 1];
    const whole = ndarray(
      Float32Array.from({ length: 16 }, (_, i) => (i % 4 < 2 ? half[i % 4] : lower[2 * Math.floor(i / 4) + (i % 2)])),
      [4, 1, 2, 2],
    );
    const ask = compile((x: Tensor, y: Tensor) => joint.logLikelihood(x, y));
    const shares = [];
    for (const y of [0, 1]) {
      const logs = numbers(await ask(whole, ndarray(new Int32Array(4).fill(y), [4], 'int32')));
      shares.push(logs.reduce((sum, log) => sum + Math.exp(log), 0));
    }
    const p = shares[1] / (shares[0] + shares[1]);
    const share = drawn.reduce((sum, y) => sum + y, 0) / count;
    expect(Math.abs(share - p)).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / count));
  });

  it('needs a model that knows labels', async () => {
    const plain = new ImageDistribution(options, new Generator(3));
    const known = ndarray([1, 0, -1, -1], [1, 1, 2, 2]);
    await expect(drawLabels(plain, known, new Generator(0))).rejects.toThrow('this model knows no labels');
  });
});
