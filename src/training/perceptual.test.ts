import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { writeSafetensors } from '../io/node/index.js';
import { AdaINNet, AutoencoderKL, ImageClassifier } from '../models/index.js';
import { saveClassifier } from '../models/node/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { autoencoderLearner } from './autoencoder.js';
import { openActivations } from './node/index.js';
import { perceptualDistance } from './perceptual.js';

let root: string;
const rng = new Generator(1);
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'noisewright-'));
  const classifier = new ImageClassifier(
    {
      inChannels: 3,
      layers: [
        [4, 1],
        [8, 2],
      ],
      normNumGroups: 2,
    },
    rng,
  );
  await saveClassifier(join(root, 'classifier'), classifier, {});
  const { encoder } = new AdaINNet({ channels: [2, 4, 4, 4] }, rng);
  const places = {
    conv1_1: 0,
    conv1_2: 2,
    conv2_1: 5,
    conv2_2: 7,
    conv3_1: 10,
    conv3_2: 12,
    conv3_3: 14,
    conv3_4: 16,
    conv4_1: 19,
  };
  const vgg = new Map<string, NdArray>();
  for (const [name, place] of Object.entries(places))
    for (const kind of ['weight', 'bias'])
      vgg.set(`features.${place}.${kind}`, encoder.stateDict().get(`${name}.${kind}`)!);
  await writeSafetensors(join(root, 'vgg.safetensors'), vgg);
});
afterAll(() => rm(root, { recursive: true, force: true }));

const images = (seed: number) => {
  const { data, shape } = new Generator(seed).rand([2, 3, 16, 16]);
  return ndarray(
    data.map((x) => 2 * x - 1),
    shape,
  );
};

describe('perceptualDistance', () => {
  it('is the squared distance of directions, position by position', async () => {
    const activations = (x: Tensor) => [x];
    const f = compile((a: Tensor, b: Tensor) => perceptualDistance(a, b, activations));
    const [a, b] = [ndarray([3, 0, 4, 1], [1, 2, 1, 2]), ndarray([0, 0, 2, 5], [1, 2, 1, 2])];
    // (0.6, 0.8) to (0, 1), and (0, 1) to (0, 1).
    expect((await f(a, b)).data[0]).toBeCloseTo((0.36 + 0.04) / 2, 5);
  });

  it.each(['classifier', 'vgg.safetensors'])('sees by %s', async (file) => {
    const activations = await openActivations(join(root, file));
    const f = compile((a: Tensor, b: Tensor) => perceptualDistance(a, b, activations));
    const [same, other] = [await f(images(1), images(1)), await f(images(1), images(2))];
    expect(Number(same.data[0])).toBe(0);
    expect(Number(other.data[0])).toBeGreaterThan(0.01);
  });

  it('trains an autoencoder beside the mean square error', async () => {
    const activations = await openActivations(join(root, 'classifier'));
    const options = { blockOutChannels: [4], normNumGroups: 2 };
    const vae = new AutoencoderKL(options, new Generator(0));
    const learners = [{}, { activations, perceptualWeight: 2 }].map((more) =>
      autoencoderLearner(vae, { klWeight: 0, rng: new Generator(3), ...more }),
    );
    const parameters = vae.parameters();
    const f = compile((x: Tensor) => {
      const batch = learners[0].prepare({ images: x });
      const [plain, both] = learners.map((learner) => learner.loss(batch));
      const [slope] = gradients(both.sub(plain), parameters.slice(0, 1));
      return { plain, both, slope: slope.square().sum() };
    });
    const { plain, both, slope } = await f(images(1));
    expect(Number(both.data[0])).toBeGreaterThan(Number(plain.data[0]) + 0.01);
    expect(Number(slope.data[0])).toBeGreaterThan(0);
  });

  it('names a file that is none', async () => {
    await expect(openActivations(join(root, 'none'))).rejects.toThrow('none');
  });
});
