import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { inTraining } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { addControls, ControlNet, type ControlNetOptions } from './controlNet.js';
import { UNet2DCondition, type UNet2DConditionOptions, type UNet2DConditions } from './unet2dCondition.js';

const shared = {
  inChannels: 2,
  downBlockTypes: ['DownBlock2D', 'CrossAttnDownBlock2D'],
  blockOutChannels: [4, 8],
  layersPerBlock: 1,
  normNumGroups: 2,
  crossAttentionDim: 6,
  attentionHeadDim: 2,
  useLinearProjection: true,
  additionEmbedType: 'text_time',
  additionTimeEmbedDim: 4,
  projectionClassEmbeddingsInputDim: 29,
} satisfies ControlNetOptions;
/** Stable Diffusion XL in small. */
const xl = {
  ...shared,
  outChannels: 2,
  upBlockTypes: ['CrossAttnUpBlock2D', 'UpBlock2D'],
  transformerLayersPerBlock: [1, 2],
  attentionHeadDim: [2, 4],
} satisfies UNet2DConditionOptions;
const plain: UNet2DConditionOptions = {
  ...shared,
  outChannels: 2,
  upBlockTypes: ['CrossAttnUpBlock2D', 'UpBlock2D'],
  additionEmbedType: null,
};

const rng = new Generator(11);
const int64 = (...values: number[]) => ndarray(values, undefined, 'int64');
const x = rng.randn([2, 2, 6, 5]);
const times = int64(3, 800);
const conditions = {
  encoderHiddenStates: rng.randn([2, 5, 6]),
  textEmbeds: rng.randn([2, 5]),
  timeIds: rng.randn([2, 6]),
};
const unetOf = (options: UNet2DConditionOptions) => new UNet2DCondition(options, new Generator(1));
const predictor = (model: UNet2DCondition) =>
  compile((x: Tensor, t: Tensor, given: UNet2DConditions) => model.forward(x, t, given));
const values = ({ data }: NdArray): number[] => Array.from(data as Float32Array);
const worst = (a: NdArray, b: NdArray): number => Math.max(...values(a).map((v, i) => Math.abs(v - values(b)[i])));

describe('UNet2DCondition', () => {
  it('learns to name a noise, and every weight has a gradient', async () => {
    const model = unetOf(xl);
    const parameters = model.parameters();
    const names = [...model.namedParameters().keys()];
    const step = compile((x: Tensor, t: Tensor, given: UNet2DConditions, noise: Tensor) =>
      inTraining(() => {
        const loss = model.forward(x, t, given).sub(noise).square().mean();
        const slopes = gradients(loss, parameters);
        for (const [i, p] of parameters.entries()) p.assign(p.sub(slopes[i].mul(0.05)));
        return { loss, sizes: slopes.map((g) => g.abs().sum()) };
      }),
    );
    const noise = rng.randn(x.shape);
    const losses: number[] = [];
    for (let i = 0; i < 6; i++) {
      const { loss, sizes } = await step(x, times, conditions, noise);
      losses.push(Number(loss.data[0]));
      for (const [k, size] of sizes.entries()) expect(Number(size.data[0]), names[k]).toBeGreaterThan(0);
    }
    expect(losses[5]).toBeLessThan(0.9 * losses[0]);
  });

  it('attends to what a mask keeps, and to nothing else', async () => {
    const predict = predictor(unetOf(plain));
    const { encoderHiddenStates: text } = conditions;
    const cut = ndarray(
      Float32Array.from({ length: 2 * 3 * 6 }, (_, i) => values(text)[Math.floor(i / 18) * 30 + (i % 18)]),
      [2, 3, 6],
    );
    const encoderAttentionMask = ndarray([1, 1, 1, 0, 0, 1, 1, 1, 0, 0], [2, 5], 'bool');
    const masked = await predict(x, times, { encoderHiddenStates: text, encoderAttentionMask });
    expect(worst(masked, await predict(x, times, { encoderHiddenStates: cut }))).toBeLessThan(1e-5);
    expect(worst(masked, await predict(x, times, { encoderHiddenStates: text }))).toBeGreaterThan(1e-4);
  });

  it('masks the context of attention with added keys, and keeps the image its own', async () => {
    const simple: UNet2DConditionOptions = {
      ...plain,
      downBlockTypes: ['DownBlock2D', 'SimpleCrossAttnDownBlock2D'],
      midBlockType: 'UNetMidBlock2DSimpleCrossAttn',
      upBlockTypes: ['SimpleCrossAttnUpBlock2D', 'UpBlock2D'],
    };
    const predict = predictor(unetOf(simple));
    const { encoderHiddenStates: text } = conditions;
    const changed = ndarray(
      Float32Array.from(values(text), (v, i) => (i % 30 < 24 ? v : v + 1)),
      [2, 5, 6],
    );
    const encoderAttentionMask = ndarray([1, 1, 1, 1, 0, 1, 1, 1, 1, 0], [2, 5]);
    await expect(predict(x, times, { encoderHiddenStates: text })).rejects.toThrow(
      /a residual block doubles the image to 6x6, but the way down left 6x5/,
    );
    const even = rng.randn([2, 2, 6, 4]);
    const [a, b] = [
      await predict(even, times, { encoderHiddenStates: text, encoderAttentionMask }),
      await predict(even, times, { encoderHiddenStates: changed, encoderAttentionMask }),
    ];
    expect(worst(a, b)).toBeLessThan(1e-6);
    expect(worst(a, await predict(even, times, { encoderHiddenStates: text }))).toBeGreaterThan(1e-4);
  });

  it('takes odd sizes where convolutions grow the image, though a residual block doubles it elsewhere', async () => {
    const three: UNet2DConditionOptions = {
      ...plain,
      blockOutChannels: [4, 8, 8],
      downBlockTypes: ['DownBlock2D', 'DownBlock2D', 'DownBlock2D'],
      upBlockTypes: ['ResnetUpsampleBlock2D', 'UpBlock2D', 'UpBlock2D'],
    };
    const { encoderHiddenStates } = conditions;
    const odd = rng.randn([2, 2, 8, 7]);
    expect((await predictor(unetOf(three))(odd, times, { encoderHiddenStates })).shape).toEqual(odd.shape);
  });

  it('does not turn round the widths of heads on the way up, as diffusers does not', () => {
    const types = {
      downBlockTypes: ['AttnDownBlock2D', 'AttnDownBlock2D'],
      upBlockTypes: ['AttnUpBlock2D', 'UpBlock2D'],
    };
    const model = unetOf({ ...plain, ...types, attentionHeadDim: [3, 8] } as UNet2DConditionOptions);
    const heads = (name: string) => model.namedVariables().get(`${name}.attentions.0.to_q.weight`)!.shape;
    expect([heads('down_blocks.1'), heads('up_blocks.0')]).toEqual([
      [8, 8],
      [6, 8],
    ]);
  });

  it('does not look at a context that no block attends to', async () => {
    const types = { downBlockTypes: ['DownBlock2D', 'DownBlock2D'], upBlockTypes: ['UpBlock2D', 'UpBlock2D'] };
    const predict = predictor(unetOf({ ...plain, ...types, midBlockType: null } as UNet2DConditionOptions));
    const wide = await predict(x, times, { encoderHiddenStates: rng.randn([2, 5, 7]) });
    expect(worst(wide, await predict(x, times, {}))).toBe(0);
  });

  it('adds the features of an adapter', async () => {
    const model = unetOf(plain);
    const predict = predictor(model);
    const { encoderHiddenStates } = conditions;
    const features = (scale: number) =>
      [
        [2, 4, 3, 3],
        [2, 8, 3, 3],
      ].map((shape) => ndarray(new Float32Array(shape.reduce((a, b) => a * b)).fill(scale), shape));
    const without = await predict(x, times, { encoderHiddenStates });
    const none = await predict(x, times, { encoderHiddenStates, downIntrablockAdditionalResiduals: features(0) });
    const some = await predict(x, times, { encoderHiddenStates, downIntrablockAdditionalResiduals: features(1) });
    expect(worst(none, without)).toBeLessThan(1e-6);
    expect(worst(some, without)).toBeGreaterThan(1e-3);
  });

  it('names what is missing or does not fit', async () => {
    const predict = predictor(unetOf(xl));
    const { textEmbeds: _, ...rest } = conditions;
    await expect(predict(x, times, rest)).rejects.toThrow('UNet2DConditionModel: needs textEmbeds');
    const wide = { ...conditions, encoderHiddenStates: rng.randn([2, 5, 7]) };
    await expect(predict(x, times, wide)).rejects.toThrow(/encoderHiddenStates \[2,5,7\], expected \[N, L, 6\]/);
    const mid = { ...conditions, midBlockAdditionalResidual: x };
    await expect(predict(x, times, mid)).rejects.toThrow(/no residuals for 4 skips and one for the middle/);
    expect(() => unetOf({ ...plain, attentionHeadDim: [2, 2, 2] })).toThrow(/attentionHeadDim has 3 entries for 2/);
    expect(() => unetOf({ ...plain, additionEmbedType: 'image' })).toThrow(
      /encoderHidDim is .*additionEmbedType image/,
    );
    expect(() => unetOf({ ...plain, upBlockTypes: ['UpBlock2D'] })).toThrow(/2 downBlockTypes and 1 upBlockTypes/);
    expect(() => unetOf({ ...plain, numAttentionHeads: 2 } as never)).toThrow(/numAttentionHeads/);
  });
});

describe('ControlNet', () => {
  const hint = rng.randn([2, 3, 12, 10]);
  const unet = unetOf(plain);
  const small = { conditioningEmbeddingOutChannels: [4, 8] };
  const { encoderHiddenStates } = conditions;

  it("starts as the UNet's way down, without a say", async () => {
    const net = ControlNet.fromUNet(unet, small, new Generator(2));
    const [theirs, ours] = [unet.stateDict(), net.stateDict()];
    const copied = [...ours.keys()].filter((name) => theirs.has(name));
    expect(copied.every((name) => /^(conv_in|time_embedding|down_blocks|mid_block)\./.test(name))).toBe(true);
    for (const name of copied) expect(ours.get(name)).toEqual(theirs.get(name));
    expect(ours.get('controlnet_down_blocks.3.weight')!.shape).toEqual([8, 8, 1, 1]);

    const speak = compile((x: Tensor, t: Tensor, hint: Tensor, given: UNet2DConditions) => {
      const { down, mid } = net.forward(x, t, hint, given);
      const controlled = { ...given, downBlockAdditionalResiduals: down, midBlockAdditionalResidual: mid };
      return { said: mid.abs().max(), controlled: unet.forward(x, t, controlled), alone: unet.forward(x, t, given) };
    });
    const { said, controlled, alone } = await speak(x, times, hint, { encoderHiddenStates });
    expect([values(said), worst(controlled, alone)]).toEqual([[0], 0]);
  });

  it('learns while the UNet stays, several at once adding up', async () => {
    const nets = [1, 2].map((seed) => ControlNet.fromUNet(unet, small, new Generator(seed)));
    const parameters = nets.flatMap((net) => net.parameters());
    const before = unet.stateDict();
    const step = compile((x: Tensor, t: Tensor, hint: Tensor, text: Tensor, noise: Tensor) =>
      inTraining(() => {
        const given = { encoderHiddenStates: text };
        const { down, mid } = addControls(
          nets.map((net, i) => net.forward(x, t, hint, given, { conditioningScale: i + 1, guess: i === 1 })),
        );
        const controlled = { ...given, downBlockAdditionalResiduals: down, midBlockAdditionalResidual: mid };
        const loss = unet.forward(x, t, controlled).sub(noise).square().mean();
        const slopes = gradients(loss, parameters);
        for (const [i, p] of parameters.entries()) p.assign(p.sub(slopes[i].mul(0.05)));
        return { loss };
      }),
    );
    const noise = rng.randn(x.shape);
    const losses: number[] = [];
    for (let i = 0; i < 6; i++)
      losses.push(Number((await step(x, times, hint, encoderHiddenStates, noise)).loss.data[0]));
    expect(losses[5]).toBeLessThan(losses[0]);
    expect(unet.stateDict()).toEqual(before);
  });

  it('names what does not fit', async () => {
    const net = new ControlNet({ ...shared, ...small }, new Generator(1));
    const speak = compile(
      (x: Tensor, t: Tensor, hint: Tensor, given: UNet2DConditions) => net.forward(x, t, hint, given).mid,
    );
    await expect(speak(x, times, x, conditions)).rejects.toThrow();
    await expect(speak(x, times, rng.randn([2, 3, 6, 5]), conditions)).rejects.toThrow(
      /hint \[2,3,6,5\] comes down to 3x3, but the latents are 6x5/,
    );
    expect(() => addControls([])).toThrow(/no outputs/);
    const kandinsky = unetOf({ ...plain, classEmbedType: 'simple_projection', projectionClassEmbeddingsInputDim: 3 });
    expect(() => ControlNet.fromUNet(kandinsky, small, new Generator(0))).toThrow(/classEmbedType/);
  });
});
