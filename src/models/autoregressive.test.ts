import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { type AutoregressiveModel, bernoulliLogLikelihood } from './autoregressive.js';
import { FullyVisibleBeliefNetwork } from './fvbn.js';
import { MADE } from './made.js';
import { NADE } from './nade.js';
import { GatedPixelCNN, PixelCNN } from './pixelCnn.js';

const rng = new Generator(0);
const small = [1, 2, 4] as const;
const models: readonly (readonly [string, (shape: readonly [number, number, number]) => AutoregressiveModel])[] = [
  ['FVBN', (shape) => new FullyVisibleBeliefNetwork(shape, rng)],
  ['NADE', (shape) => new NADE(shape, 6, rng)],
  ['MADE', (shape) => new MADE(shape, { hiddenDims: [20, 20], maskSeed: 3 }, rng)],
  ['PixelCNN', (shape) => new PixelCNN(shape, { blocks: 1, channels: 4, headChannels: 4 }, rng)],
  ['GatedPixelCNN', (shape) => new GatedPixelCNN(shape, { gatedLayers: 2, gatedChannels: 4, headChannels: 4 }, rng)],
];
const numbers = ({ data }: NdArray) => Array.from(data, Number);
const everyImage = (n: number): NdArray<'float32'> =>
  ndarray(
    Float32Array.from({ length: n * 2 ** n }, (_, at) => (Math.floor(at / n) >> (at % n)) & 1),
    [2 ** n, ...small],
  );

describe.each(models)('%s', (_, make) => {
  it('gives every image a probability, and all of them one together', async () => {
    const model = make(small);
    const likelihood = compile((x: Tensor) => bernoulliLogLikelihood(model.forward(x), x));
    const logs = numbers(await likelihood(everyImage(8)));
    expect(logs.reduce((sum, log) => sum + Math.exp(log), 0)).toBeCloseTo(1, 4);
  });

  it('predicts each variable from those before it in its order, and from no other', async () => {
    const model = make([1, 5, 5]);
    const x = ndarray(
      rng.rand([1, 1, 5, 5]).data.map((u) => (u < 0.5 ? 0 : 1)),
      [1, 1, 5, 5],
    );
    const influence = compile((x: Tensor, pick: Tensor) => gradients(model.forward(x).mul(pick).sum(), [x])[0]);
    for (const place of [0, 7, 13, 24]) {
      const pick = ndarray(
        Float32Array.from({ length: 25 }, (_, i) => Number(i === model.order[place])),
        [1, 1, 5, 5],
      );
      const seen = numbers(await influence(x, pick)).flatMap((slope, i) => (slope === 0 ? [] : [i]));
      const before = new Set(model.order.slice(0, place));
      expect(seen.filter((i) => !before.has(i))).toEqual([]);
    }
  });

  it('names images of another shape', () => {
    const f = compile((x: Tensor) => make(small).forward(x));
    return expect(f(rng.rand([1, 1, 4, 4]))).rejects.toThrow('images [1,1,4,4], expected [N, 1, 2, 4]');
  });
});
