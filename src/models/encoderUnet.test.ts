import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { inTraining } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { EncoderUNet, type EncoderUNetOptions, encoderUnetPresets } from './encoderUnet.js';

const small: EncoderUNetOptions = {
  imageSize: 8,
  inChannels: 2,
  modelChannels: 8,
  outChannels: 5,
  numResBlocks: 1,
  channelMult: [1, 2],
  numHeadChannels: 8,
  normGroups: 4,
};
const create = (options: Partial<EncoderUNetOptions> = {}) =>
  new EncoderUNet({ ...small, ...options }, new Generator(0));

async function logitsOf(model: EncoderUNet, size = 8) {
  const run = compile((x: Tensor, t: Tensor) => model.forward(x, t));
  const out = await run(new Generator(1).randn([3, 2, size, size]), ndarray([0, 500, 999.5]));
  await run.release();
  return out;
}

describe('EncoderUNet', () => {
  it('gives one logit per class, whatever the pooling and the way down', async () => {
    for (const pool of ['adaptive', 'attention', 'spatial', 'spatial_v2'] as const)
      for (const down of [{}, { convResample: false }, { resblockUpdown: true, useScaleShiftNorm: true }]) {
        const logits = await logitsOf(create({ pool, ...down, attentionResolutions: [1] }));
        expect(logits.shape).toEqual([3, 5]);
        expect([...(logits.data as Float32Array)].every(Number.isFinite)).toBe(true);
      }
  });

  it('begins undecided where the last layer begins at zero', async () => {
    expect((await logitsOf(create())).data).toEqual(new Float32Array(15));
  });

  it('reads images of other sizes, unless its pooling has a place for each position', async () => {
    expect((await logitsOf(create(), 12)).shape).toEqual([3, 5]);
    await expect(logitsOf(create({ pool: 'attention' }), 12)).rejects.toThrow('36 positions to pool, expected 16');
  });

  it('reaches every parameter with its gradient', async () => {
    const model = create({ pool: 'attention', resblockUpdown: true, dropout: 0.1 });
    const rng = new Generator(2);
    for (const p of model.parameters()) p.set(rng.randn(p.shape));
    const parameters = model.namedParameters();
    const run = compile((x: Tensor, t: Tensor) => {
      const loss = inTraining(() => model.forward(x, t).square().sum(), rng);
      const slopes = gradients(loss, [...parameters.values()]);
      return Object.fromEntries([...parameters.keys()].map((name, i) => [name, slopes[i]]));
    });
    const slopes = await run(rng.randn([2, 2, 8, 8]), ndarray([3, 700]));
    await run.release();
    for (const [name, { data }] of Object.entries(slopes))
      expect([name, data.some((g) => Number(g) !== 0)]).toEqual([name, true]);
  });

  it('has presets that fit together', () => {
    for (const preset of Object.values(encoderUnetPresets).slice(0, 3))
      expect(new EncoderUNet({ imageSize: 28, outChannels: 10, ...preset }, new Generator(0)).numClasses).toBe(10);
  });

  it('says what is wrong', async () => {
    expect(() => create({ pool: 'attention', numHeadChannels: null })).toThrow('pool attention needs numHeadChannels');
    expect(() => create({ numHeadChannels: 5 })).toThrow('heads of 5 do not divide 16 channels');
    expect(() => create({ numHeadChannels: null, numHeads: 3 })).toThrow('3 heads do not divide 16 channels');
    expect(() => create({ ...({ heads: 3 } as object) })).toThrow(/EncoderUNetModel: .*heads/);
    const model = create();
    const run = compile((x: Tensor) => model.forward(x, x));
    await expect(run(ndarray(new Float32Array(192), [1, 3, 8, 8]))).rejects.toThrow(
      'EncoderUNet: images [1,3,8,8], expected [N, 2, H, W]',
    );
  });
});
