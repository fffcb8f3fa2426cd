import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { constant, evaluate, type Tensor } from '../tensor/index.js';
import { expFloat32 } from './expFloat32.js';
import {
  activate,
  activationName,
  adaIN,
  ControlNetConditioningEmbedding,
  ConvTranspose2d,
  channelStatistics,
  Downsample2D,
  FeedForward,
  GroupNorm,
  groupNormalize,
  LabelEmbedding,
  LayerNorm,
  PatchEmbed,
  ResnetBlock2D,
  RMSNorm,
  SpatialNorm,
  sinCos2d,
  TimestepEmbedding,
  Transformer2DModel,
  timestepEmbedding,
  Upsample2D,
} from './index.js';

const rng = () => new Generator(0);
const random = (...shape: number[]): Tensor => constant(new Generator(9).randn(shape));
const numbers = async (x: Tensor): Promise<number[]> => Array.from((await evaluate(x)).data, Number);

function expectClose(a: readonly number[], b: readonly number[]): void {
  expect(a.length).toBe(b.length);
  a.forEach((value, i) => {
    expect(value).toBeCloseTo(b[i], 5);
  });
}

describe('activations', () => {
  it('are found by their name in configurations', async () => {
    const x = constant([-1, 0.5, 2]);
    const sigmoid = (v: number) => 1 / (1 + Math.exp(-v));
    const expected = (f: (v: number) => number) => [-1, 0.5, 2].map(f);
    expectClose(
      await numbers(activate('silu', x)),
      expected((v) => v * sigmoid(v)),
    );
    expectClose(
      await numbers(activate('swish', x)),
      expected((v) => v * sigmoid(v)),
    );
    expectClose(
      await numbers(activate('quick_gelu', x)),
      expected((v) => v * sigmoid(1.702 * v)),
    );
    expectClose(
      await numbers(activate('mish', x)),
      expected((v) => v * Math.tanh(Math.log1p(Math.exp(v)))),
    );
    expectClose(await numbers(activate('relu', x)), [0, 0.5, 2]);
    expectClose(await numbers(activate('gelu', x)), [-0.158655, 0.345731, 1.9545]);
    expect(activationName('SiLU')).toBe('silu');
    expect(() => activationName('toString')).toThrow("activation 'toString' is unknown");
    expect(() => new FeedForward({ dim: 4, activationFn: 'tanhh' as never }, rng())).toThrow("activation 'tanhh'");
  });
});

describe('timesteps', () => {
  it('embeds floats and integers alike, an odd width with a zero at its end', async () => {
    const integers = constant(ndarray([0, 999], [2], 'int64'));
    expect(await numbers(timestepEmbedding(integers, 5))).toEqual(
      await numbers(timestepEmbedding(constant([0, 999]), 5)),
    );
    expectClose((await numbers(timestepEmbedding(constant([0, 1]), 5))).slice(0, 5), [0, 0, 1, 1, 0]);
    expectClose((await numbers(timestepEmbedding(constant([1]), 4, { flipSinToCos: true }))).slice(0, 3), [
      Math.cos(1),
      Math.cos(1e-4),
      Math.sin(1),
    ]);
    expect(() => timestepEmbedding(constant(3), 4)).toThrow('timesteps must be [N]');
  });

  it('computes frequencies within an ulp of e^x', () => {
    for (let x = -12; x <= 1; x += 0.01) {
      const exact = Math.exp(Math.fround(x));
      expect(Math.abs(expFloat32(Math.fround(x)) - exact) / exact).toBeLessThan(2 ** -23);
    }
    expect(expFloat32(0)).toBe(1);
  });

  it('needs condProjDim for a condition', () => {
    const embedding = new TimestepEmbedding({ inChannels: 4, timeEmbedDim: 8 }, rng());
    expect(() => embedding.forward(random(2, 4), random(2, 4))).toThrow('condProjDim');
  });
});

describe('labels and positions', () => {
  it('embeds dropped labels as the null class', async () => {
    const embedding = new LabelEmbedding(3, 2, 0.1, rng());
    const labels = constant(ndarray([0, 1], [2], 'int64'));
    const dropped = await numbers(embedding.forward(labels, constant(ndarray([0, 1], [2], 'bool'))));
    const table = Array.from(embedding.embeddingTable.weight.value.data, Number);
    expect(dropped).toEqual([...table.slice(0, 2), ...table.slice(6, 8)]);
    expect(() => new LabelEmbedding(3, 2, 0, rng()).forward(labels, labels)).toThrow('no null class');
  });

  it('encodes columns in the first half, rows in the second', () => {
    const { shape, data } = sinCos2d(8, [2, 3], { baseSize: 2, extraTokens: 1 });
    expect(shape).toEqual([7, 8]);
    const row = (i: number) => Array.from(data.slice(8 * i, 8 * i + 8));
    expect(row(0)).toEqual(Array(8).fill(0));
    expect(row(1)).toEqual([0, 0, 1, 1, 0, 0, 1, 1]);
    expect(row(4).slice(0, 4)).toEqual(row(1).slice(0, 4)); // same column
    expect(row(3).slice(4)).toEqual(row(1).slice(4)); // same row
    expect(() => sinCos2d(6, [2, 2])).toThrow('multiple of 4');
  });

  it('embeds patches as the strided convolution does', async () => {
    const config = { height: 4, width: 6, patchSize: 2, inChannels: 3, embedDim: 8, posEmbedType: null };
    const embed = new PatchEmbed(config, rng());
    const image = random(2, 3, 4, 6);
    const convolved = embed.proj.forward(image).reshape([2, 8, 6]).swapAxes(1, 2);
    expectClose(await numbers(embed.forward(image)), await numbers(convolved));
    const crop = new PatchEmbed({ ...config, posEmbedType: 'sincos', posEmbedMaxSize: 2 }, rng());
    expect([...crop.namedVariables().keys()]).toEqual(['pos_embed', 'proj.weight', 'proj.bias']);
    expect(() => crop.forward(image)).toThrow('2x3 patches, expected at most 2x2');
  });
});

describe('norms', () => {
  it('normalises groups, with one scale and shift per channel', async () => {
    const norm = new GroupNorm(2, 4);
    norm.weight!.set(ndarray([1, 2, 3, 4]));
    norm.bias!.set(ndarray([0, 0, 0, 5]));
    const x = random(2, 4, 3, 3);
    const plain = await numbers(groupNormalize(x, 2));
    const expected = plain.map((v, i) => v * ((Math.floor(i / 9) % 4) + 1) + (Math.floor(i / 9) % 4 === 3 ? 5 : 0));
    expectClose(await numbers(norm.forward(x)), expected);
    expect(() => new GroupNorm(3, 4)).toThrow('3 groups do not divide 4 channels');
    expect(() => norm.forward(random(2, 8, 3, 3))).toThrow('expected 4 channels');
    expect(() => new LayerNorm(4).forward(random(2, 3))).toThrow('does not end with [4]');
  });

  it('leaves tiny inputs small: eps is under the root', async () => {
    const x = constant([1e-4, -1e-4]).reshape([1, 2]);
    expectClose(await numbers(new RMSNorm(2, { eps: 1e-2 }).forward(x)), [1e-3, -1e-3]);
    expectClose(await numbers(new LayerNorm(2, { eps: 1e-2 }).forward(x)), [1e-3, -1e-3]);
  });

  it('gives content the statistics of style', async () => {
    const [content, style] = [random(1, 2, 4, 4), random(1, 2, 5, 3).mul(3).add(1)];
    const [of, wanted] = [channelStatistics(adaIN(content, style)), channelStatistics(style)];
    expectClose(await numbers(of.mean), await numbers(wanted.mean));
    const [std, target] = [await numbers(of.std), await numbers(wanted.std)];
    std.forEach((s, i) => {
      expect(s / target[i]).toBeCloseTo(1, 3);
    });
  });

  it('scales by a latent map of any size', () => {
    expect(new SpatialNorm(32, 4, rng()).forward(random(1, 32, 4, 6), random(1, 4, 2, 2)).shape).toEqual([1, 32, 4, 6]);
  });
});

describe('blocks of images', () => {
  it('resamples, odd sizes too', () => {
    const x = random(1, 4, 5, 6);
    expect(new Upsample2D({ channels: 4 }, rng()).forward(x).shape).toEqual([1, 4, 10, 12]);
    expect(new Upsample2D({ channels: 4, useConv: true }, rng()).forward(x, [9, 11]).shape).toEqual([1, 4, 9, 11]);
    const transposed = new Upsample2D({ channels: 4, outChannels: 6, useConvTranspose: true }, rng());
    expect(transposed.forward(x).shape).toEqual([1, 6, 10, 12]);
    expect(new Downsample2D({ channels: 4 }, rng()).forward(x).shape).toEqual([1, 4, 2, 3]);
    expect(new Downsample2D({ channels: 4, useConv: true }, rng()).forward(x).shape).toEqual([1, 4, 3, 3]);
    expect(new Downsample2D({ channels: 4, useConv: true, padding: 0 }, rng()).forward(x).shape).toEqual([1, 4, 2, 3]);
    expect(() => new Downsample2D({ channels: 4, outChannels: 8 }, rng())).toThrow('expected useConv');
    const normed = (elementwiseAffine?: boolean) =>
      new Downsample2D({ channels: 4, normType: 'ln_norm', elementwiseAffine }, rng()).stateDict();
    expect([...normed().keys()]).toEqual([]);
    expect([...normed(true).keys()]).toEqual(['norm.weight', 'norm.bias']);
    expect(new ConvTranspose2d(4, 6, 3, { groups: 2 }, rng()).bias?.shape).toEqual([6]);
  });

  it('needs the timestep where it was built for one', () => {
    const block = new ResnetBlock2D({ inChannels: 4, tembChannels: 8, groups: 2 }, rng());
    expect(() => block.forward(random(1, 4, 3, 3))).toThrow('embedding of the timestep');
    const build = () => new ResnetBlock2D({ inChannels: 4, groups: 2, timeEmbeddingNorm: 'ada' as never }, rng());
    expect(build).toThrow("timeEmbeddingNorm 'ada'");
  });

  it('is the same transformer with 1x1 convolutions and with linear projections', async () => {
    const config = { numAttentionHeads: 2, attentionHeadDim: 4, inChannels: 4, normNumGroups: 2 };
    const convolved = new Transformer2DModel(config, rng());
    const linear = new Transformer2DModel({ ...config, useLinearProjection: true }, rng());
    const reshaped = [...convolved.stateDict()].map(
      ([name, x]) => [name, x.shape.length === 4 ? ({ ...x, shape: x.shape.slice(0, 2) } as NdArray) : x] as const,
    );
    linear.loadStateDict(new Map(reshaped));
    const x = random(2, 4, 3, 2);
    expectClose(await numbers(linear.forward(x)), await numbers(convolved.forward(x)));
  });

  it('starts a ControlNet without effect', async () => {
    const config = { conditioningEmbeddingChannels: 4, blockOutChannels: [2, 4] };
    const y = new ControlNetConditioningEmbedding(config, rng()).forward(random(1, 3, 4, 4));
    expect(y.shape).toEqual([1, 4, 2, 2]);
    expect(await numbers(y)).toEqual(Array(16).fill(0));
  });
});
