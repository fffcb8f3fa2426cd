import { describe, expect, it } from 'vitest';
import { zeros } from '../array/index.js';
import {
  apg,
  autoguidance,
  cfg,
  cfgZeroStar,
  composeConditions,
  frequencyDecoupled,
  type Guider,
  guide,
  magnitudeAware,
  pag,
  skipLayer,
  smoothedEnergy,
  tangentialCfg,
  unguided,
} from '../guidance/index.js';
import { DiT, UNet2D, unet2dPresets } from '../models/index.js';
import { withPerturbations } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { ddim, ddpm, flowMatchEuler, type Sampler } from '../samplers/index.js';
import { flops, variable } from '../tensor/index.js';
import { predict } from './predict.js';
import { type SampleOptions, sampleImages } from './sample.js';

const rng = new Generator(3);
const ditOf = (numLayers: number, numEmbedsAdaNorm = 3): DiT => {
  const sizes = { numAttentionHeads: 2, attentionHeadDim: 8, sampleSize: 8, patchSize: 4, inChannels: 1 };
  const model = new DiT({ ...sizes, numLayers, numEmbedsAdaNorm }, rng);
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.1));
  return model;
};
const model = ditOf(3);
const weaker = ditOf(1);
const make = (guidance: Guider, more: Partial<SampleOptions> = {}) =>
  sampleImages({ model, sampler: ddim(), plan: { steps: 3 }, classes: [1, 2], guidance, ...more });

describe('sampling under guidance', () => {
  it('takes every guider with any sampler, and repeats itself', async () => {
    const plain = await make(unguided());
    const guiders = [pag(2), cfgZeroStar(2), apg(3), tangentialCfg(3), frequencyDecoupled([3, 2]), magnitudeAware(3)];
    const more = [skipLayer(2), smoothedEnergy(2), autoguidance(2, { weaker }), autoguidance(2, { dropout: 0.5 })];
    for (const guidance of [...guiders, ...more]) {
      const images = await make(guidance);
      expect(images.data.every(Number.isFinite)).toBe(true);
      expect(images.data).not.toEqual(plain.data);
    }
    const dropping = autoguidance(2, { dropout: 0.5 });
    expect((await make(dropping)).data).toEqual((await make(dropping)).data);
    const all = guide(cfg(4), pag(2), apg(2), { interval: [0.34, 0.8], rescale: 0.7 });
    for (const sampler of [ddpm(), flowMatchEuler()] as Sampler[])
      expect((await make(all, { sampler })).data.every(Number.isFinite)).toBe(true);
  });

  it('weighs several conditions: one alone is classifier-free guidance', async () => {
    const conditions = { b: [2, 0] };
    const alone = await make(composeConditions(3, { positive: 1 }));
    const plain = await make(cfg(3));
    alone.data.forEach((value, i) => {
      expect(value).toBeCloseTo(plain.data[i], 4);
    });
    const both = await make(composeConditions(3, { positive: 1, b: 0.5 }), { conditions });
    expect(both.data).not.toEqual(alone.data);
    const wrong = make(composeConditions(3, { positive: 1, b: 0.5 }), { conditions: { b: [2] } });
    await expect(wrong).rejects.toThrow('sample: 1 b classes for 2 images');
  });

  it('refuses before the first step what a later one could not do', async () => {
    const late = { interval: [0.67, 1] } as const;
    await expect(make(pag(2, { ...late, layers: 'middle' }))).rejects.toThrow(
      "no self-attention of DiT is named like 'middle'",
    );
    await expect(make(cfg(2, late), { knowsNullClass: false })).rejects.toThrow('needs an unconditional prediction');
    await expect(make(composeConditions(2, { b: 1 }, late))).rejects.toThrow(
      "needs a condition 'b', which was not given",
    );
    await expect(make(cfg(2, late), { knowsNullClass: false, negativeClasses: [0, 0] })).resolves.toBeDefined();
    await expect(make(pag(2), { knowsNullClass: false })).resolves.toBeDefined();
  });
});

describe('what a step computes', () => {
  /** Operations of a step's predictions, in units of the plain one; 24 pictures of 28x28 are run in parts. */
  function cost(model: DiT | UNet2D, guidance: Guider): number {
    const [x, t] = [variable(zeros([24, 1, 28, 28])), variable(zeros([24]))];
    const [labels, nulls] = [0, 1].map(() => variable(zeros([24], 'int64')));
    const of = (guider: Guider) =>
      flops(
        guider.branches({ index: 0, total: 2, timestep: 0 }).map((branch) => {
          const label = model.nullClass === undefined ? undefined : branch.condition === 'positive' ? labels : nulls;
          const forward = () => predict(model, x, t, label);
          return branch.perturb ? withPerturbations(branch.perturb(model, [28, 28]), forward) : forward();
        }),
      );
    return of(guidance) / of(unguided());
  }
  const dit = new DiT({ numAttentionHeads: 3, attentionHeadDim: 16, numLayers: 6, sampleSize: 28, inChannels: 1 }, rng);
  const unet = new UNet2D({ ...unet2dPresets.tiny, sampleSize: 28, inChannels: 1, outChannels: 1 }, rng);

  it('runs again only what differs, part by part', () => {
    expect(cost(dit, cfg(4))).toBeLessThan(2);
    expect(cost(dit, pag(2))).toBeLessThan(1.34);
    expect(cost(dit, guide(cfg(4), pag(2)))).toBeLessThan(2.34);
    expect(cost(dit, pag(2, { layers: -1 }))).toBeLessThan(1.17);
    expect(cost(unet, pag(2))).toBeLessThan(1.8);
    expect(cost(unet, pag(2))).toBeGreaterThan(1);
  });

  it('runs nothing more where guidance is off', () => {
    expect(cost(dit, guide(cfg(4), pag(2), { interval: [0.5, 1] }))).toBe(1);
  });
});
