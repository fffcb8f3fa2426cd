import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { ClipImageProcessor } from '../io/index.js';
import { writeSafetensors } from '../io/node/index.js';
import { inTraining } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, constant, evaluate, gradients, type Tensor } from '../tensor/index.js';
import { CLIPTextModel, CLIPTextModelWithProjection } from './clipText.js';
import { CLIPVisionModel } from './clipVision.js';
import { DiT } from './dit.js';
import { loadComponent, saveModel } from './node/index.js';
import { PixArtTransformer2D } from './pixartTransformer2d.js';
import { modelClass, type StoredModel } from './registry.js';
import { blackened, SafetyChecker, verdicts } from './safetyChecker.js';
import { type SD3Options, SD3Transformer2D } from './sd3Transformer2d.js';

/** Moves every weight away from where it begins. */
function shaken<M extends StoredModel>(model: M): M {
  const rng = new Generator(5);
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.3));
  return model;
}

/** Expects each weight's gradient to be what the loss does when the weight moves a little in some direction. */
async function expectSlopes(
  model: StoredModel,
  inputs: readonly NdArray[],
  lossOf: (...inputs: Tensor[]) => Tensor,
): Promise<void> {
  const rng = new Generator(3);
  const named = [...model.namedParameters()];
  const parameters = named.map(([, p]) => p);
  const directions = parameters.map((p) => rng.randn(p.shape));
  const slopes = compile((along: readonly Tensor[], given: readonly Tensor[]) =>
    inTraining(() => gradients(lossOf(...given), parameters).map((g, i) => g.mul(along[i]).sum())),
  );
  const loss = compile((given: readonly Tensor[]) => lossOf(...given));
  const analytic = (await slopes(directions, inputs)).map(({ data }) => Number(data[0]));
  const step = 5e-3;
  const scale = Math.max(...analytic.map(Math.abs));
  for (const [i, p] of parameters.entries()) {
    const { value } = p;
    const at = async (sign: number): Promise<number> => {
      const moved = Float32Array.from(value.data as Float32Array, (w, k) => w + sign * step * directions[i].data[k]);
      p.set(ndarray(moved, value.shape));
      return Number((await loss(inputs)).data[0]);
    };
    const numeric = ((await at(1)) - (await at(-1))) / (2 * step);
    p.set(value as NdArray<'float32'>);
    expect(Math.abs(analytic[i] - numeric) / scale, named[i][0]).toBeLessThan(0.02);
  }
}

const int64 = (values: number[][]) => ndarray(values.flat(), [values.length, values[0].length], 'int64');
const small = { hiddenSize: 8, intermediateSize: 12, numHiddenLayers: 2, numAttentionHeads: 2, projectionDim: 4 };
const text = { ...small, vocabSize: 20, maxPositionEmbeddings: 5 };
const vision = { ...small, imageSize: 8, patchSize: 4 };
const allClose = (a: ArrayLike<number | bigint>, b: ArrayLike<number | bigint>, worst = 1e-6) => {
  expect(a.length).toBe(b.length);
  for (let i = 0; i < a.length; i++) expect(Math.abs(Number(a[i]) - Number(b[i]))).toBeLessThan(worst);
};

describe('CLIPTextModel', () => {
  const run = async (model: CLIPTextModel, ids: number[][], mask?: number[][]) => {
    const encode = compile((ids: Tensor, mask: readonly Tensor[]) => model.forward(ids, { attentionMask: mask[0] }));
    return encode(int64(ids), mask ? [int64(mask)] : []);
  };

  it('sums a text up at its end, and does not look ahead', async () => {
    const model = shaken(new CLIPTextModel({ ...text, eosTokenId: 7 }, new Generator(1)));
    const a = await run(model, [[3, 7, 9, 7, 1]]);
    const b = await run(model, [[3, 7, 4, 19, 2]]);
    allClose(a.poolerOutput.data, b.poolerOutput.data);
    allClose(a.poolerOutput.data, a.lastHiddenState.data.slice(8, 16));
    expect(a.hiddenStates).toHaveLength(3);
  });

  it('with the old end token 2 takes the highest id', async () => {
    const model = shaken(new CLIPTextModel({ ...text, eosTokenId: 2 }, new Generator(1)));
    const { poolerOutput, lastHiddenState } = await run(model, [[3, 2, 9, 19, 19]]);
    allClose(poolerOutput.data, lastHiddenState.data.slice(24, 32));
  });

  it('leaves masked tokens out', async () => {
    const model = shaken(new CLIPTextModel({ ...text, eosTokenId: 7 }, new Generator(1)));
    const mask = [[1, 0, 1, 1, 0]];
    const a = await run(model, [[3, 5, 9, 7, 1]], mask);
    const b = await run(model, [[3, 6, 9, 7, 2]], mask);
    allClose(a.poolerOutput.data, b.poolerOutput.data);
  });

  it('refuses texts over length and unknown settings', () => {
    const model = new CLIPTextModel(text, new Generator(1));
    expect(() => model.forward(constant(int64([[1, 2, 3, 4, 5, 6]])))).toThrow('6 tokens, expected at most 5');
    expect(() => new CLIPTextModel({ ...text, hiddenAct: 'cube' }, new Generator(1))).toThrow("activation 'cube'");
    expect(() => new CLIPTextModel({ ...text, numAttentionHeads: 3 }, new Generator(1))).toThrow('no multiple');
    const dropping = new CLIPTextModel({ ...text, attentionDropout: 0.1 }, new Generator(1));
    expect(() => inTraining(() => dropping.forward(constant(int64([[1]]))))).toThrow('set attentionDropout to 0');
  });

  it('gives every weight its gradient', async () => {
    const model = shaken(new CLIPTextModelWithProjection({ ...text, eosTokenId: 7 }, new Generator(1)));
    const mask = constant(int64([[1, 1, 0, 1, 1]]));
    await expectSlopes(model, [int64([[3, 5, 9, 7, 1]])], (ids) => {
      const { textEmbeds, hiddenStates } = model.forward(ids, { attentionMask: mask });
      return textEmbeds.square().sum().add(hiddenStates[1].sum());
    });
  });
});

describe('CLIPVisionModel', () => {
  it('gives every weight its gradient', async () => {
    const model = shaken(new CLIPVisionModel(vision, new Generator(1)));
    await expectSlopes(model, [new Generator(2).randn([2, 3, 8, 8])], (x) =>
      model.forward(x).poolerOutput.square().sum(),
    );
  });

  it('refuses pictures of another size', () => {
    const model = new CLIPVisionModel(vision, new Generator(1));
    const picture = constant(new Generator(2).randn([1, 3, 8, 9]));
    expect(() => model.forward(picture)).toThrow('pictures [1,3,8,9], expected [N, 3, 8, 8]');
  });
});

describe('SafetyChecker', () => {
  const checker = () => shaken(new SafetyChecker({ projectionDim: 4, visionConfig: vision }, new Generator(1)));

  it('scores a concept by its cosine less its threshold', async () => {
    const model = checker();
    const picture = constant(new Generator(2).randn([1, 3, 8, 8]));
    const embeds = await evaluate(model.visualProjection.forward(model.visionModel.forward(picture).poolerOutput));
    const concepts = Float32Array.from(model.conceptEmbeds.value.data, Number);
    concepts.set(
      Float32Array.from(embeds.data as Float32Array, (v) => 3 * v),
      4,
    );
    model.conceptEmbeds.set(ndarray(concepts, [17, 4]));
    model.conceptEmbedsWeights.set(ndarray(new Float32Array(17).fill(0.25)));
    expect(Number((await evaluate(model.forward(picture).concepts)).data[1])).toBeCloseTo(0.75, 5);
  });

  it('judges', () => {
    const row = (count: number, at: Record<number, number>) =>
      ndarray(
        Float32Array.from({ length: count }, (_, i) => at[i] ?? -1),
        [1, count],
      );
    const judge = (concepts: Record<number, number>, special: Record<number, number> = {}) =>
      verdicts(row(17, concepts), row(3, special))[0];
    expect(judge({ 4: 0.02 })).toEqual({ unsafe: true, badConcepts: [4], specialCare: [] });
    expect(judge({ 4: -0.005, 5: 0.0004 }).unsafe).toBe(false);
    expect(judge({ 4: -0.005 }, { 0: 0.1, 1: -0.005 })).toEqual({
      unsafe: true,
      badConcepts: [4],
      specialCare: [0, 1],
    });
  });

  it('looks at pictures as a pipeline makes them, and blackens', async () => {
    const model = checker();
    const images = new Generator(2).randn([2, 3, 10, 12]);
    const judged = await model.check(images, new ClipImageProcessor({ size: 8, cropSize: 8 }));
    expect(judged).toHaveLength(2);
    const unsafe = { unsafe: true, badConcepts: [0], specialCare: [] };
    const black = blackened(images, [{ ...unsafe, unsafe: false }, unsafe]);
    expect(black.data.subarray(0, 360)).toEqual(images.data.subarray(0, 360));
    expect(new Set(black.data.subarray(360))).toEqual(new Set([-1]));
  });
});

describe('folders of transformers', () => {
  it('give back what was saved', async () => {
    const root = await mkdtemp(join(tmpdir(), 'noisewright-'));
    const models = [
      new CLIPTextModel(text, new Generator(1)),
      new CLIPTextModelWithProjection(text, new Generator(1)),
      new SafetyChecker({ projectionDim: 4, visionConfig: vision }, new Generator(1)),
    ];
    for (const model of models) {
      await saveModel(join(root, 'model'), model);
      const back = await loadComponent(join(root, 'model'));
      expect(back).toBeInstanceOf(model.constructor);
      expect(back.config).toEqual(model.config);
      expect(back.stateDict()).toEqual(model.stateDict());
    }
    await rm(root, { recursive: true });
  });

  it("may be of diffusers' first class of transformers", async () => {
    const root = await mkdtemp(join(tmpdir(), 'noisewright-'));
    const small = { numAttentionHeads: 1, attentionHeadDim: 8, numLayers: 1, sampleSize: 4 };
    const nothing = { num_vector_embeds: null, only_cross_attention: false, attention_type: 'default' };
    for (const model of [
      new DiT({ ...small, numEmbedsAdaNorm: 3 }, new Generator(1)),
      new PixArtTransformer2D({ ...small, crossAttentionDim: 8 }, new Generator(1)),
    ]) {
      await saveModel(root, model);
      const path = join(root, 'config.json');
      const json = { ...JSON.parse(await readFile(path, 'utf8')), ...nothing, _class_name: 'Transformer2DModel' };
      await writeFile(path, JSON.stringify(json));
      expect(await loadComponent(root, 'Transformer2DModel')).toBeInstanceOf(model.constructor);
      await writeFile(path, JSON.stringify({ ...json, only_cross_attention: true }));
      await expect(loadComponent(root)).rejects.toThrow(/onlyCrossAttention/);
    }
    await rm(root, { recursive: true });
  });

  it('may say more than shapes the network, and hold positions', async () => {
    const root = await mkdtemp(join(tmpdir(), 'noisewright-'));
    const model = new CLIPTextModel(text, new Generator(1));
    await saveModel(root, model);
    const path = join(root, 'config.json');
    const json = JSON.parse(await readFile(path, 'utf8'));
    await writeFile(
      path,
      JSON.stringify({ ...json, architectures: undefined, torch_dtype: 'float32', is_decoder: true }),
    );
    const positions = ['text_model.embeddings.position_ids', int64([[0, 1, 2, 3, 4]])] as const;
    await writeSafetensors(join(root, 'model.safetensors'), new Map([...model.stateDict(), positions]));
    expect((await loadComponent(root, 'CLIPTextModel')).config).toEqual(model.config);
    await expect(loadComponent(root)).rejects.toThrow(/expected one of .*CLIPTextModel.*, got undefined/);
    await writeFile(path, JSON.stringify({ ...json, vocab_size: 'many' }));
    await expect(loadComponent(root)).rejects.toThrow(/config.json: .*vocabSize.*got "many"/);
    await rm(root, { recursive: true });
  });
});

const rng = new Generator(9);
const width = { numAttentionHeads: 2, attentionHeadDim: 4, patchSize: 2, inChannels: 2 };
const x = rng.randn([1, 2, 4, 6]);
const t = ndarray([500], [1], 'int64');

describe('SD3Transformer2D', () => {
  const config = {
    ...width,
    sampleSize: 8,
    outChannels: null,
    numLayers: 3,
    jointAttentionDim: 5,
    captionProjectionDim: 8,
    pooledProjectionDim: 3,
    posEmbedMaxSize: 4,
  };
  const model = shaken(
    new SD3Transformer2D({ ...config, dualAttentionLayers: [1], qkNorm: 'rms_norm' }, new Generator(1)),
  );
  const text = rng.randn([1, 3, 5]);
  const pooled = rng.randn([1, 3]);
  const conditions = { encoderHiddenStates: constant(text), pooledProjections: constant(pooled) };
  const predict = async (...variants: object[]) => {
    const forward = compile((x: Tensor, t: Tensor) =>
      variants.map((more) => model.forward(x, t, { ...conditions, ...more })),
    );
    return (await forward(x, t)).map(({ data }) => data);
  };
  const sum = (name: string) => [...model.stateDict().keys()].filter((key) => key.includes(name)).length;

  it('has the shape and names of the class', () => {
    expect(model.forward(constant(x), constant(t), conditions).shape).toEqual([1, 2, 4, 6]);
    expect([sum('attn2'), sum('ff_context'), sum('pos_embed.pos_embed'), sum('norm_added_q')]).toEqual([10, 8, 1, 3]);
    expect(modelClass('SD3Transformer2DModel').className).toBe(SD3Transformer2D.className);
  });

  it('leaves layers out', async () => {
    const [all, none, some] = await predict({}, { skipLayers: [] }, { skipLayers: [1] });
    expect(none).toEqual(all);
    expect(some).not.toEqual(all);
    expect(() => model.forward(constant(x), constant(t), { ...conditions, skipLayers: [3] })).toThrow('3 to skip');
  });

  it('spreads what a ControlNet says over the blocks, but for the last', async () => {
    const zero = constant(ndarray(new Float32Array(48), [1, 6, 8]));
    const some = constant(rng.randn([1, 6, 8]));
    const control = (...samples: Tensor[]) => ({ blockControlnetHiddenStates: samples });
    const [plain, nothing, last, middle, each, one] = await predict(
      {},
      control(zero),
      control(zero, zero, some),
      control(zero, some, zero),
      control(some, some, some),
      control(some),
    );
    expect([nothing, last]).toEqual([plain, plain]);
    expect(middle).not.toEqual(plain);
    expect(each).toEqual(one);
  });

  it('gives every weight its gradient', async () => {
    const two: SD3Options = { ...config, numLayers: 2, dualAttentionLayers: [0], qkNorm: 'rms_norm' };
    const model = shaken(new SD3Transformer2D(two, new Generator(1)));
    await expectSlopes(model, [x, t], (x, t) => model.forward(x, t, conditions).square().mean());
  });

  it('refuses widths that do not fit and latents that are too large', () => {
    expect(() => new SD3Transformer2D({ ...config, captionProjectionDim: 9 }, new Generator(1))).toThrow('the width 8');
    expect(() => model.forward(constant(rng.randn([1, 2, 10, 4])), constant(t), conditions)).toThrow('at most 4x4');
  });
});

describe('PixArtTransformer2D', () => {
  const config = { ...width, sampleSize: 8, outChannels: 4, numLayers: 2, crossAttentionDim: 8, captionChannels: 5 };
  const model = shaken(
    new PixArtTransformer2D(
      { ...config, useAdditionalConditions: true, attentionHeadDim: 6, crossAttentionDim: 12 },
      new Generator(1),
    ),
  );
  const size = { resolution: constant(ndarray([64, 48], [1, 2])), aspectRatio: constant(ndarray([0.75], [1, 1])) };
  const conditions = { encoderHiddenStates: constant(rng.randn([1, 3, 5])), ...size };

  it('predicts noise and variance', () => {
    expect(model.forward(constant(x), constant(t), conditions).shape).toEqual([1, 4, 4, 6]);
  });

  it('gives every weight its gradient', () =>
    expectSlopes(model, [x, t], (x, t) => model.forward(x, t, conditions).square().mean()));

  it('does not see masked text', async () => {
    const encoderAttentionMask = constant(ndarray([1, 1, 0], [1, 3]));
    const run = compile((text: Tensor) =>
      model.forward(constant(x), constant(t), { ...size, encoderHiddenStates: text, encoderAttentionMask }),
    );
    const text = rng.randn([1, 3, 5]);
    const other = ndarray(text.data.slice().fill(7, 10), [1, 3, 5]);
    expect((await run(other)).data).toEqual((await run(text)).data);
  });

  it('asks for the size of the picture where it is a condition', () => {
    expect(() => model.forward(constant(x), constant(t))).toThrow('needs the resolution');
    expect(new PixArtTransformer2D(config, new Generator(1)).adalnSingle.emb.resolutionEmbedder).toBeUndefined();
  });
});
