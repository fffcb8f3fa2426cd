import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { autoregressiveNames, ImageDistribution } from './imageDistribution.js';
import { MADE } from './made.js';

const modelConfigs = {
  fvbn: {},
  nade: { hidden: 6 },
  made: { hiddenDims: [20], order: 'random' },
  pixelcnn: { blocks: 1, channels: 4, headChannels: 4 },
  'gated-pixelcnn': { gatedLayers: 1, gatedChannels: 4, headChannels: 4 },
};
const imageShape: [number, number, number] = [1, 2, 2];
const joint = (model: keyof typeof modelConfigs) =>
  new ImageDistribution({ model, modelConfig: modelConfigs[model], imageShape, classes: 3 }, new Generator(2));
const numbers = ({ data }: NdArray) => Array.from(data, Number);

describe.each(autoregressiveNames)('p(x, y) by %s', (name) => {
  it('is no more than one over all pictures and labels, the rest being on labels that are none', async () => {
    const distribution = joint(name);
    const ask = compile((x: Tensor, y: Tensor) => distribution.logLikelihood(x, y));
    const every = ndarray(
      Float32Array.from({ length: 64 }, (_, at) => (Math.floor(at / 4) >> (at % 4)) & 1),
      [16, ...imageShape],
    );
    const shares: number[] = [];
    for (const y of [0, 1, 2]) {
      const logs = numbers(await ask(every, ndarray(new Int32Array(16).fill(y), [16], 'int32')));
      shares.push(logs.reduce((sum, log) => sum + Math.exp(log), 0));
    }
    // p(y) depends on the label's variables alone: four of them, of which the last is always 0.
    const all = shares.reduce((a, b) => a + b);
    expect(all).toBeGreaterThan(0);
    expect(all).toBeLessThan(1);
    const first = Array.from(distribution.model.order.slice(0, 4)).sort();
    expect(first).toEqual([0, 1, 2, 3]);
  });

  it('keeps its config', () => {
    const json = JSON.parse(JSON.stringify(joint(name).toJson()));
    expect(json._class_name).toBe('ImageDistribution');
    expect(ImageDistribution.fromJson(json, new Generator(2)).config).toEqual(joint(name).config);
  });
});

describe('ImageDistribution', () => {
  it('writes labels above pictures, and takes them off again', () => {
    const pictures = ndarray([1, 0, -1, 1, 0, 0, -1, -1], [2, ...imageShape]);
    const known = joint('made').known(pictures, [2, 0]);
    expect(numbers(known)).toEqual([0, 0, 1, 0, 1, 0, -1, 1, 1, 0, 0, 0, 0, 0, -1, -1]);
    expect(numbers(joint('made').pictures(known))).toEqual(numbers(pictures));
    expect(numbers(joint('made').known(pictures)).slice(0, 4)).toEqual([-1, -1, -1, 0]);
  });

  it('predicts pixels in raster order unless told otherwise', () => {
    const made = new MADE([1, 3, 3], { hiddenDims: [4], leading: 9 }, new Generator(0));
    expect(Array.from(made.order)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    const part = new MADE([1, 3, 3], { hiddenDims: [4], leading: 3 }, new Generator(0));
    expect(Array.from(part.order.slice(0, 3))).toEqual([0, 1, 2]);
    expect(Array.from(part.order).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(Array.from(part.order)).not.toEqual(Array.from(made.order));
  });

  it('says what is wrong', () => {
    const make = (options: object) =>
      new ImageDistribution({ model: 'made', imageShape, ...options }, new Generator(0));
    expect(() => make({ modelConfig: { depth: 2 } })).toThrow(/made: .*depth/);
    expect(() => make({ imageShape: [3, 2, 2], classes: 2 })).toThrow('labels go with pictures of 1 channel, got 3');
    const pictures = ndarray([1, 0, 1, 1], [1, ...imageShape]);
    expect(() => make({}).known(pictures, [0])).toThrow('this model knows no labels');
    expect(() => joint('made').known(pictures, [3])).toThrow('label 3 out of range 0..2');
    expect(() => joint('made').known(pictures, [0, 1])).toThrow('2 labels, expected 1');
    expect(() => joint('made').known(ndarray([1], [1, 1, 1, 1]))).toThrow('images [1,1,1,1], expected [N, 1, 2, 2]');
  });
});
