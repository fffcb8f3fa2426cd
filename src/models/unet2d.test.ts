import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { configFromJson, configToJson } from './config.js';
import { denoiserClass } from './registry.js';
import { UNet2D, type UNet2DOptions, unet2dConfig, unet2dPresets } from './unet2d.js';

const small: UNet2DOptions = {
  sampleSize: 8,
  blockOutChannels: [4, 8],
  downBlockTypes: ['DownBlock2D', 'AttnDownBlock2D'],
  upBlockTypes: ['AttnUpBlock2D', 'UpBlock2D'],
  layersPerBlock: 1,
  attentionHeadDim: 4,
  normNumGroups: 2,
};
const int64 = (...values: number[]) => ndarray(values, undefined, 'int64');

async function predict(model: UNet2D, x: NdArray, timestep: NdArray, labels?: NdArray): Promise<NdArray> {
  const run = compile((x: Tensor, t: Tensor, y: readonly Tensor[]) => model.forward(x, t, y[0]));
  const y = await run(x, timestep, labels ? [labels] : []);
  await run.release();
  return y;
}

/**
 * diffusers' own numbers: UNet2DModel(...) after torch.manual_seed(7), on torch.randn(2, 3, 8, 8) after
 * torch.manual_seed(1), at timesteps 3 and 700: four elements of the output, and the sum of all magnitudes.
 */
const recorded: Record<string, [UNet2DOptions, 'table' | 'vectors' | 'none', number[], number]> = {
  'a table of classes, padding on one side, a single head': [
    { ...small, numClassEmbeds: 5, downsamplePadding: 0, attentionHeadDim: null },
    'table',
    [-0.550328, -0.174796, -0.014171, 0.159456],
    94.9215,
  ],
  'resampling by residual blocks, time as scale and shift, Mish': [
    {
      ...small,
      downBlockTypes: ['ResnetDownsampleBlock2D', 'AttnDownBlock2D'],
      upBlockTypes: ['AttnUpBlock2D', 'ResnetUpsampleBlock2D'],
      downsampleType: 'resnet',
      upsampleType: 'resnet',
      resnetTimeScaleShift: 'scale_shift',
      actFn: 'mish',
    },
    'none',
    [0.141432, -0.000154, 0.43903, -0.007624],
    93.9818,
  ],
  'stages that see the image, Fourier features of the time': [
    {
      sampleSize: 8,
      blockOutChannels: [32, 32],
      layersPerBlock: 1,
      downBlockTypes: ['SkipDownBlock2D', 'AttnSkipDownBlock2D'],
      upBlockTypes: ['AttnSkipUpBlock2D', 'SkipUpBlock2D'],
      normNumGroups: null,
      timeEmbeddingType: 'fourier',
      normEps: 1e-6,
    },
    'none',
    [0.022636, -0.331347, 0.000308, 0.000141],
    25.5154,
  ],
  'classes embedded as times are, centred input': [
    {
      ...small,
      classEmbedType: 'timestep',
      freqShift: 1,
      flipSinToCos: false,
      centerInputSample: true,
      timeEmbeddingDim: 12,
    },
    'table',
    [0.047855, 0.090573, -0.011936, -0.181205],
    91.4573,
  ],
  'embeddings in place of classes, learned times, no middle': [
    {
      ...small,
      classEmbedType: 'identity',
      timeEmbeddingType: 'learned',
      numTrainTimesteps: 1000,
      midBlockType: null,
    },
    'vectors',
    [-0.071499, -0.209333, -0.238923, -0.226248],
    80.7745,
  ],
};

describe('UNet2D', () => {
  for (const [name, [options, labels, elements, magnitude]] of Object.entries(recorded))
    it(`starts and computes as diffusers' model does: ${name}`, async () => {
      const rng = new Generator(1);
      const x = rng.randn([2, 3, 8, 8]);
      const y = { table: int64(4, 1), vectors: rng.randn([2, 16]), none: undefined }[labels];
      const { data, shape } = await predict(new UNet2D(options, new Generator(7)), x, int64(3, 700), y);
      expect(shape).toEqual([2, 3, 8, 8]);
      for (const [i, at] of [0, 77, 200, 383].entries()) expect(data[at]).toBeCloseTo(elements[i], 5);
      const sum = [...(data as Float32Array)].reduce((s, v) => s + Math.abs(v), 0);
      expect(sum).toBeCloseTo(magnitude, 3);
    });

  it("has diffusers' checkpoint keys", () => {
    const names = [...new UNet2D({ ...small, numClassEmbeds: 3 }, new Generator(0)).namedVariables().keys()];
    for (const name of [
      'conv_in.weight',
      'time_embedding.linear_1.weight',
      'class_embedding.weight',
      'down_blocks.0.resnets.0.time_emb_proj.bias',
      'down_blocks.0.downsamplers.0.conv.weight',
      'down_blocks.1.attentions.0.group_norm.weight',
      'down_blocks.1.resnets.0.conv_shortcut.weight',
      'mid_block.attentions.0.to_out.0.weight',
      'mid_block.resnets.1.norm2.bias',
      'up_blocks.0.upsamplers.0.conv.bias',
      'up_blocks.1.resnets.1.conv1.weight',
      'conv_norm_out.weight',
      'conv_out.bias',
    ])
      expect(names).toContain(name);
    const learned = new UNet2D({ ...small, timeEmbeddingType: 'fourier' }, new Generator(0));
    expect(learned.namedVariables().get('time_proj.weight')?.trainable).toBe(false);
  });

  it('takes images of any size, odd ones too', async () => {
    const model = new UNet2D(small, new Generator(0));
    expect((await predict(model, new Generator(0).randn([1, 3, 7, 10]), int64(1))).shape).toEqual([1, 3, 7, 10]);
  });

  it('keeps a last class for "no class"', () => {
    const format = { channels: 1, size: 28, classes: 10 };
    const model = denoiserClass('unet').create(unet2dPresets.s, format, new Generator(0));
    expect([model.nullClass, model.sampleSize, model.inChannels, model.outChannels]).toEqual([10, 28, 1, 1]);
    expect(model.parameterCount()).toBe(3_645_697);
    expect(new UNet2D(small, new Generator(0)).nullClass).toBeUndefined();
  });

  it('reads and writes the config as diffusers does', () => {
    const json = { ...configToJson('UNet2DModel', { ...small, normEps: 1e-6 }), _use_default_values: ['dropout'] };
    const config = configFromJson('UNet2DModel', unet2dConfig, json);
    expect(config).toMatchObject({ ...small, normEps: 1e-6, dropout: 0, downsamplePadding: 1 });
    const old = configFromJson('UNet2DModel', unet2dConfig, { down_block_types: ['UNetResAttnDownBlock2D'] });
    expect(old.downBlockTypes).toEqual(['AttnDownBlock2D']);
  });

  it('refuses configs that cannot be', () => {
    const make = (options: object) => () => new UNet2D({ ...small, ...options }, new Generator(0));
    expect(make({ actFn: 'sine' })).toThrow(/UNet2DModel: actFn: expected one of .*got "sine"/);
    expect(make({ blockOutChannel: [4] })).toThrow(/UNet2DModel: .*blockOutChannel/);
    expect(make({ blockOutChannels: [4] })).toThrow(
      'UNet2D: 1 blockOutChannels, 2 downBlockTypes and 2 upBlockTypes, expected as many of each',
    );
    expect(make({ downBlockTypes: ['DownBlock2D', 'CrossAttnDownBlock2D'] })).toThrow(/CrossAttnDownBlock2D/);
    expect(make({ normNumGroups: 3 })).toThrow('GroupNorm: 3 groups do not divide 4 channels');
    expect(make({ normNumGroups: null })).toThrow('UNet2D: DownBlock2D needs normNumGroups');
    expect(make({ attentionHeadDim: 16 })).toThrow('UNet2D: attentionHeadDim 16 is more than 8 channels');
    expect(make({ timeEmbeddingType: 'learned' })).toThrow('UNet2D: learned time embeddings need numTrainTimesteps');
    expect(() => make({ sampleSize: [8, 16] })().sampleSize).toThrow(/sampleSize \[8,16\] is no side of a square/);
  });

  it('asks for labels when it has classes, and only then', async () => {
    const x = ndarray(new Float32Array(192), [1, 3, 8, 8]);
    const conditional = new UNet2D({ ...small, numClassEmbeds: 3 }, new Generator(0));
    await expect(predict(conditional, x, int64(0))).rejects.toThrow('UNet2D: needs class labels');
    await expect(predict(new UNet2D(small, new Generator(0)), x, int64(0), int64(0))).rejects.toThrow(
      'UNet2D: got class labels, but the model has no classes',
    );
  });
});
