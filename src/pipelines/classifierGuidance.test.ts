import { describe, expect, it } from 'vitest';
import { cfg, classifierGuidance, guide } from '../guidance/index.js';
import { DiT, EncoderUNet, UNet2D } from '../models/index.js';
import { Generator } from '../random/index.js';
import { ddim, ddpm, euler, type Sampler } from '../samplers/index.js';
import { sampleImages } from './sample.js';

const rng = new Generator(5);
const filled = <M extends DiT | UNet2D | EncoderUNet>(model: M): M => {
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.1));
  return model;
};
const dit = filled(
  new DiT(
    {
      numAttentionHeads: 1,
      attentionHeadDim: 8,
      numLayers: 1,
      sampleSize: 8,
      patchSize: 4,
      inChannels: 1,
      numEmbedsAdaNorm: 3,
    },
    rng,
  ),
);
const unet = filled(
  new UNet2D(
    {
      sampleSize: 8,
      inChannels: 1,
      outChannels: 1,
      blockOutChannels: [8],
      downBlockTypes: ['DownBlock2D'],
      upBlockTypes: ['UpBlock2D'],
      layersPerBlock: 1,
      normNumGroups: 4,
    },
    rng,
  ),
);
const classifierOf = (outChannels: number, imageSize = 8) =>
  filled(
    new EncoderUNet(
      { imageSize, inChannels: 1, modelChannels: 8, outChannels, numResBlocks: 1, channelMult: [1], normGroups: 4 },
      rng,
    ),
  );
const classifier = classifierOf(3);
const plan = { steps: 3 };
const make = (classes: number[], guidance = cfg(1), sampler: Sampler = ddim() as Sampler, model: DiT | UNet2D = dit) =>
  sampleImages({ model, sampler, plan, classes, guidance, seed: 1 });

describe('classifier guidance of a sampling run', () => {
  it('depends on the class where the predictions do not', async () => {
    const towards = (scale: number) => classifierGuidance(classifier, scale, { unconditional: true });
    const [zero, one, two] = [await make([0], towards(30)), await make([1], towards(30)), await make([3])];
    expect(zero.data).not.toEqual(one.data);
    expect((await make([0], towards(0))).data).toEqual(two.data);
    expect((await make([3], towards(30))).data).toEqual(two.data);
  });

  it('gives classes to a model that has none', async () => {
    const towards = classifierGuidance(classifier, 30);
    const [zero, one] = [
      await make([0], towards, euler() as Sampler, unet),
      await make([1], towards, euler() as Sampler, unet),
    ];
    expect(zero.data).not.toEqual(one.data);
    await expect(make([4], towards, euler() as Sampler, unet)).rejects.toThrow('class label 4 out of range 0..2');
  });

  it('moves the mean of DDPM, and of no other sampler', async () => {
    const towards = classifierGuidance(classifier, 30, { form: 'mean' });
    const [plain, moved] = [await make([0], cfg(1), ddpm() as Sampler), await make([0], towards, ddpm() as Sampler)];
    expect(moved.data).not.toEqual(plain.data);
    await expect(make([0], towards)).rejects.toThrow('a gradient can guide the mean of DDPM only');
  });

  it('composes with classifier-free guidance', async () => {
    const [alone, both] = [await make([0], cfg(3)), await make([0], guide(cfg(3), classifierGuidance(classifier, 30)))];
    expect(both.data).not.toEqual(alone.data);
  });

  it('is refused where classifier and denoiser do not fit', async () => {
    await expect(make([0], classifierGuidance(classifierOf(4), 1))).rejects.toThrow(
      'the guidance knows 4 classes, the model 3',
    );
    await expect(make([0], classifierGuidance(classifierOf(3, 16), 1))).rejects.toThrow(
      "the classifier is for images [1,16,16], the denoiser's are [1,8,8]",
    );
  });
});
