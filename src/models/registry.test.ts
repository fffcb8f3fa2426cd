import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { inTraining } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import type { Denoiser } from './denoiser.js';
import { denoiserClass, denoiserClassOf } from './registry.js';
import { UNet2D } from './unet2d.js';

const int64 = (...values: number[]) => ndarray(values, undefined, 'int64');

/** Moves every weight away from zero, where gates and heads begin. */
function shaken(model: Denoiser): Denoiser {
  const rng = new Generator(5);
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.2));
  return model;
}

describe('denoisers', () => {
  const format = { channels: 2, size: 8, classes: 3 };
  const unet = { blockOutChannels: [4, 8], layersPerBlock: 1, normNumGroups: 2, attentionHeadDim: 4 };
  const models: Denoiser[] = [
    denoiserClass('dit').create({ numAttentionHeads: 1, attentionHeadDim: 8, numLayers: 1 }, format, new Generator(0)),
    denoiserClass('UNet2DModel').create(
      {
        ...unet,
        downBlockTypes: ['DownBlock2D', 'AttnDownBlock2D'],
        upBlockTypes: ['AttnUpBlock2D', 'UpBlock2D'],
      },
      format,
      new Generator(0),
    ),
  ];

  it('fit images of a format and know their class', () => {
    expect(models.map((model) => [model.inChannels, model.outChannels, model.sampleSize, model.nullClass])).toEqual([
      [2, 2, 8, 3],
      [2, 2, 8, 3],
    ]);
    expect(models.map((model) => denoiserClassOf(model).folder)).toEqual(['transformer', 'unet']);
    expect(models[1]).toBeInstanceOf(UNet2D);
    expect(() => denoiserClass('GAN')).toThrow(
      /expected one of DiTTransformer2DModel, UNet2DModel, UViT, DiTVariant, got "GAN"/,
    );
  });

  for (const model of models)
    it(`${model.constructor.name}: the gradient of every weight follows its differences`, async () => {
      shaken(model);
      const rng = new Generator(3);
      const parameters = model.parameters();
      const directions = parameters.map((p) => rng.randn(p.shape));
      const [x, target] = [rng.randn([2, 2, 8, 8]), rng.randn([2, 2, 8, 8])];
      const lossOf = (x: Tensor, t: Tensor, y: Tensor, target: Tensor) =>
        model.forward(x, t, y).sub(target).square().mean();
      const slopes = compile((x: Tensor, t: Tensor, y: Tensor, target: Tensor, along: readonly Tensor[]) =>
        inTraining(() => gradients(lossOf(x, t, y, target), parameters).map((g, i) => g.mul(along[i]).sum())),
      );
      const loss = compile(lossOf);
      const inputs = [x, int64(3, 800), int64(0, 3), target] as const;
      const analytic = (await slopes(...inputs, directions)).map(({ data }) => Number(data[0]));
      const step = 1e-2;
      const lossAt = async (i: number, sign: number) => {
        const { value } = parameters[i];
        const direction = directions[i].data;
        const moved = Float32Array.from(value.data as Float32Array, (w, k) => w + sign * step * direction[k]);
        parameters[i].set(ndarray(moved, value.shape));
        const result = Number((await loss(...inputs)).data[0]);
        parameters[i].set(value);
        return result;
      };
      const scale = Math.max(...analytic.map(Math.abs));
      for (const [i, slope] of analytic.entries()) {
        const numeric = ((await lossAt(i, 1)) - (await lossAt(i, -1))) / (2 * step);
        expect(Math.abs(slope - numeric) / scale, [...model.namedParameters().keys()][i]).toBeLessThan(0.02);
      }
    });
});
