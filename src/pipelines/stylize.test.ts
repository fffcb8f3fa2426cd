import { describe, expect, test } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { arrayDataset } from '../data/index.js';
import { AdaINNet, beginNearIdentity, decoderState, encoderState } from '../models/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import {
  LearningSession,
  normalizeActivations,
  styleBatches,
  styleLearner,
  styleLosses,
  styleTraining,
} from '../training/index.js';
import { coral } from './coral.js';
import { mixStyles, Stylizer, stylize } from './stylize.js';

const options = { threads: 1 };
const channels: [number, number, number, number] = [8, 8, 16, 16];
const net = new AdaINNet({ channels }, new Generator(0));
// An untrained decoder's colours would be too weak to see, and half of them clipped.
for (const [name, v] of net.decoder.namedParameters())
  v.set(
    ndarray(
      Float32Array.from(v.value.data as Float32Array, (x) => (name === 'conv1_1.bias' ? 0.5 : 2.4 * x)),
      v.shape,
    ),
  );
const picture = (seed: number, height: number, width: number, colours = 3): NdArray<'float32'> => {
  const data = new Generator(seed).fillUniform(new Float32Array(colours * height * width), -1, 1);
  return ndarray(data, [colours, height, width]);
};
const worst = (a: NdArray, b: NdArray): number =>
  (a.data as Float32Array).reduce((max, x, i) => Math.max(max, Math.abs(x - Number(b.data[i]))), 0);

describe('stylize', () => {
  test('pictures of any size keep it, and gray ones become coloured', async () => {
    for (const [height, width, colours] of [
      [9, 9, 3],
      [19, 22, 3],
      [16, 17, 1],
    ]) {
      const made = await stylize({
        net,
        content: picture(1, height, width, colours),
        styles: [picture(2, 12, 31)],
        compile: options,
      });
      expect(made.shape).toEqual([3, height, width]);
    }
  });

  test('alpha 0 ignores the style; a mixture of one style is that style', async () => {
    const stylizer = new Stylizer(net, options);
    const content = picture(1, 16, 16);
    const [a, b] = [await stylizer.style(picture(2, 16, 16)), await stylizer.style(picture(3, 24, 16))];
    const apply = (style: typeof a, alpha?: number) => stylizer.apply(content, style, alpha);
    expect(worst(await apply(a, 0), await apply(b, 0))).toBeLessThan(1e-6);
    expect(worst(await apply(a), await apply(b))).toBeGreaterThan(1e-3);
    expect(worst(await apply(mixStyles([a, b], [0, 2])), await apply(b))).toBeLessThan(1e-6);
    const half = mixStyles([a, b], [1, 3]);
    expect(half.mean.data[0]).toBeCloseTo((Number(a.mean.data[0]) + 3 * Number(b.mean.data[0])) / 4, 5);
    await stylizer.release();
  });

  test('bad pictures, weights and alphas are named', async () => {
    const stylizer = new Stylizer(net, options);
    await expect(stylizer.style(picture(1, 8, 20))).rejects.toThrow('at least 9 x 9 pixels');
    await expect(stylizer.style(picture(1, 9, 9, 2))).rejects.toThrow('style [2,9,9], expected one image');
    const style = await stylizer.style(picture(1, 9, 9));
    await expect(stylizer.apply(picture(1, 9, 9), style, 1.5)).rejects.toThrow('alpha 1.5, expected 0 to 1');
    expect(() => mixStyles([style], [0])).toThrow('weights [0] for 1 styles');
    expect(() => mixStyles([style], [1, 1])).toThrow('weights [1,1] for 1 styles');
    await stylizer.release();
  });
});

describe('coral', () => {
  test('gives a picture the colours of another', () => {
    const [source, target] = [picture(1, 30, 40), picture(2, 50, 20)];
    const moved = ndarray(
      Float32Array.from(target.data as Float32Array, (x, i) => (i < 1000 ? 0.2 * x + 0.5 : 0.5 * x)),
      target.shape,
    );
    const made = coral(source, moved);
    expect(made.shape).toEqual(source.shape);
    const red = made.data.slice(0, 1200);
    const ofTarget = moved.data.slice(0, 1000);
    const mean = (xs: Float32Array) => xs.reduce((a, b) => a + b, 0) / xs.length;
    expect(mean(red)).toBeCloseTo(mean(ofTarget), 5);
    expect(worst(coral(source, source), source)).toBeLessThan(1e-5);
  });

  test('a picture of one colour takes the mean of the other', () => {
    const plain = ndarray(new Float32Array(3 * 9).fill(0.3), [3, 3, 3]);
    const target = picture(2, 5, 5);
    const mean = target.data.slice(0, 25).reduce((a, b) => a + b, 0) / 25;
    expect(coral(plain, target).data[4]).toBeCloseTo(mean, 5);
    expect(() => coral(picture(1, 4, 4, 1), target)).toThrow('source [1,4,4], expected [3, H, W]');
  });
});

describe('training', () => {
  const bytes = Uint8Array.from({ length: 8 * 3 * 16 * 16 }, (_, i) => (i * i * 31 + i * 7) % 256);
  const pictures = arrayDataset(ndarray(bytes, [8, 3, 16, 16], 'uint8'));

  test('normalised activations have mean 1', async () => {
    const own = new AdaINNet({ channels }, new Generator(3));
    await normalizeActivations(own.encoder, pictures, { compile: options });
    const images = new Float32Array(8 * 768);
    for (let i = 0; i < 8; i++) pictures.fill(i, images, i * 768);
    const run = compile((x: Tensor) => own.encoder.activations(x.add(1).mul(0.5)).map((a) => a.mean()), options);
    for (const mean of await run(ndarray(images, [8, 3, 16, 16]))) expect(Number(mean.data[0])).toBeCloseTo(1, 4);
    await run.release();
  });

  test('only the decoder learns, and the loss falls', async () => {
    const own = new AdaINNet({ channels }, new Generator(3));
    await normalizeActivations(own.encoder, pictures, { compile: options });
    const before = own.encoder.conv4_1.weight.value.data.slice();
    const settings = { content: '', style: '', steps: 40, learningRate: 5e-3, warmup: 0, threads: 1 };
    const session = new LearningSession(() => styleLearner(own), styleTraining.parse(settings));
    const losses: number[] = [];
    for await (const { loss } of session.learn(styleBatches(pictures, pictures, { batch: 4 }))) losses.push(loss);
    await session.release();
    expect(losses).toHaveLength(40);
    expect(losses[39]).toBeLessThan(0.8 * losses[0]);
    expect(own.encoder.conv4_1.weight.value.data).toEqual(before);
    const { contentLoss, styleLoss } = await styleLosses(own, pictures, pictures, { compile: options });
    expect(contentLoss + 10 * styleLoss).toBeLessThan(0.8 * losses[0]);
  });

  test('a weight of identity teaches it to give contents back', async () => {
    const own = new AdaINNet({ channels, pooling: 'average' }, new Generator(3));
    const settings = { content: '', style: '', steps: 30, learningRate: 5e-3, warmup: 0, threads: 1 };
    const learner = styleLearner(own, { contentWeight: 0, styleWeight: 0, identityWeight: 1 });
    const session = new LearningSession(() => learner, styleTraining.parse(settings));
    const losses: number[] = [];
    for await (const { loss } of session.learn(styleBatches(pictures, pictures, { batch: 4 }))) losses.push(loss);
    await session.release();
    const copy = compile((x: Tensor) => own.decoder.forward(own.encoder.forward(x.add(1).mul(0.5))), options);
    const images = new Float32Array(8 * 768);
    for (let i = 0; i < 8; i++) pictures.fill(i, images, i * 768);
    const made = (await copy(ndarray(images, [8, 3, 16, 16]))).data as Float32Array;
    await copy.release();
    const error = made.reduce((sum, x, i) => sum + (x - (images[i] + 1) / 2) ** 2, 0) / made.length;
    expect(error).toBeLessThan(0.8 * losses[0]);
  });

  test('a net may begin as a coarse copy', async () => {
    const own = new AdaINNet({ channels }, new Generator(3));
    beginNearIdentity(own);
    const plain = ndarray(
      Float32Array.from({ length: 3 * 256 }, (_, i) => [0.2, 0.5, 0.9][Math.floor(i / 256)]),
      [1, 3, 16, 16],
    );
    const run = compile((x: Tensor) => own.decoder.forward(own.encoder.forward(x)), options);
    const made = await run(plain);
    await run.release();
    const error = (made.data as Float32Array).reduce((sum, x, i) => sum + Math.abs(x - plain.data[i]), 0) / 768;
    expect(error).toBeLessThan(0.15);
  });

  test('styles follow their own order, from any position', async () => {
    const indexed = (length: number) =>
      arrayDataset(
        ndarray(
          Uint8Array.from({ length }, (_, i) => 20 * i),
          [length, 1, 1],
          'uint8',
        ),
      );
    const collect = async (position?: { epoch: number; index: number }) => {
      const pairs: string[] = [];
      for await (const { arrays } of styleBatches(indexed(5), indexed(7), { batch: 2, epochs: 4, position }))
        pairs.push([arrays.contents.data, arrays.styles.data].join());
      return pairs;
    };
    const all = await collect();
    expect(all).toHaveLength(8);
    expect(await collect({ epoch: 2, index: 2 })).toEqual(all.slice(5));
  });
});

describe("others' weights", () => {
  const from = new AdaINNet({ channels }, new Generator(5));
  const flat = (layers: readonly (readonly [string, string])[], state: Map<string, NdArray>) =>
    new Map(
      layers.flatMap(([theirs, ours]) => ['weight', 'bias'].map((k) => [`${theirs}.${k}`, state.get(`${ours}.${k}`)!])),
    ) as Map<string, NdArray>;
  const names = 'conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 conv4_1'.split(' ');

  test("torchvision's VGG-19 brings all but the normalisation", () => {
    const places = [0, 2, 5, 7, 10, 12, 14, 16, 19].map((p, i) => [`features.${p}`, names[i]] as const);
    const state = flat(places, from.encoder.stateDict());
    state.set('classifier.0.weight', ndarray([1]));
    net.encoder.loadStateDict(encoderState(state, net.encoder.stateDict()));
    expect(net.encoder.conv3_4.weight.value.data).toEqual(from.encoder.conv3_4.weight.value.data);
    state.delete('features.16.weight');
    expect(() => encoderState(state, net.encoder.stateDict())).toThrow(
      'features.16.weight (conv3_4.weight) is missing',
    );
  });

  test("pytorch-AdaIN's two files", () => {
    const vgg = [0, 2, 5, 9, 12, 16, 19, 22, 25, 28].map((p, i) => [`${p}`, ['normalize', ...names][i]] as const);
    net.encoder.loadStateDict(encoderState(flat(vgg, from.encoder.stateDict()), new Map()));
    const decoder = [1, 5, 8, 11, 14, 18, 21, 25, 28].map((p, i) => [`${p}`, names.toReversed()[i]] as const);
    net.decoder.loadStateDict(decoderState(flat(decoder, from.decoder.stateDict())));
    expect(net.decoder.conv1_1.weight.value.data).toEqual(from.decoder.conv1_1.weight.value.data);
  });
});
