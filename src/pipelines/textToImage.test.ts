import { describe, expect, it, vi } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { cfg, guide, pag } from '../guidance/index.js';
import { trainTokenizer } from '../io/index.js';
import {
  AutoencoderKL,
  CLIPTextModel,
  loraLayers,
  UNet2DCondition,
  type UNet2DConditionOptions,
} from '../models/index.js';
import type { Linear } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { ddim, euler } from '../samplers/index.js';
import { ClipPrompts } from './promptEncoders.js';
import { TextToImage, type TextToImageOptions } from './textToImage.js';

const rng = new Generator(0);
const unetOptions: UNet2DConditionOptions = {
  sampleSize: 8,
  blockOutChannels: [8, 8],
  downBlockTypes: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  upBlockTypes: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  layersPerBlock: 1,
  crossAttentionDim: 6,
  attentionHeadDim: 2,
  normNumGroups: 4,
};
const model = new UNet2DCondition(unetOptions, rng);
const vae = new AutoencoderKL(
  {
    blockOutChannels: [8, 8],
    downBlockTypes: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
    upBlockTypes: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
    normNumGroups: 4,
  },
  rng,
);

/** A text's letters in place of a text encoder. */
const prompts = {
  asked: [] as string[],
  async encode(texts: readonly string[]) {
    prompts.asked.push(...texts);
    const codes = texts.flatMap((text) =>
      Array.from({ length: 24 }, (_, i) => (text.charCodeAt(i % 4) || 64) / 64 - 1),
    );
    return { encoderHiddenStates: ndarray(codes, [texts.length, 4, 6]) };
  },
};
const pipeline = new TextToImage({ model, vae, prompts, sampler: ddim({ clipSample: false }) });
const base: TextToImageOptions = { prompt: 'cat', steps: 3, seed: 1, guidanceScale: 3 };
const images = (options: Partial<TextToImageOptions>) => pipeline.images({ ...base, ...options });
const numbers = (array: NdArray) => [...(array.data as Float32Array)];
const distance = (a: NdArray, b: NdArray, at: (i: number) => boolean = () => true) => {
  const [x, y] = [numbers(a), numbers(b)];
  return Math.max(...x.map((value, i) => (at(i) ? Math.abs(value - y[i]) : 0)));
};

const picture = rng.rand([1, 3, 16, 16]) as NdArray<'float32'>;
const left = ndarray(
  Array.from({ length: 256 }, (_, i) => (i % 16 < 8 ? 1 : 0)),
  [1, 1, 16, 16],
);

describe('TextToImage', () => {
  it('repeats itself from a seed, follows prompts and guidance', async () => {
    const first = await images({});
    expect(first.shape).toEqual([1, 3, 16, 16]);
    expect(numbers(await images({}))).toEqual(numbers(first));
    expect(distance(await images({ prompt: 'dog' }), first)).toBeGreaterThan(1e-3);
    expect(distance(await images({ negativePrompt: 'dog' }), first)).toBeGreaterThan(1e-3);
    expect(distance(await images({ guidance: guide(cfg(3), pag(2)) }), first)).toBeGreaterThan(1e-4);
  });

  it('keeps compiled steps for calls that differ in numbers only', async () => {
    const kept = new TextToImage(pipeline.parts);
    const traced = vi.spyOn(model, 'forward');
    const make = (options: Partial<TextToImageOptions>) => kept.images({ ...base, ...options });
    const tracings = async (options: Partial<TextToImageOptions>) => {
      traced.mockClear();
      expect(numbers(await make(options))).toEqual(numbers(await images(options)));
      return traced.mock.calls.length;
    };
    const once = await tracings({});
    kept.keepCompiled();
    expect(await tracings({})).toBe(once);
    expect(await tracings({ prompt: 'dog', seed: 2, steps: 2 })).toBe(once / 2);
    expect(await tracings({ guidanceScale: 5 })).toBe(once);
    expect(await tracings({ size: [8, 8] })).toBe(once);
    await kept.release();
    expect(await tracings({})).toBe(once);
    traced.mockRestore();
  });

  it('encodes no prompt that the guidance does not ask for', async () => {
    prompts.asked.length = 0;
    await images({ guidanceScale: 1, negativePrompt: 'dog' });
    expect(prompts.asked).toEqual(['cat']);
  });

  it('makes several pictures of each prompt, in any size, as one by one from the same noise', async () => {
    const noise = rng.randn([4, 4, 6, 8]);
    const all = await images({ prompt: ['cat', 'dog'], imagesPerPrompt: 2, size: [12, 16], noise });
    expect(all.shape).toEqual([4, 3, 12, 16]);
    const third = ndarray(noise.data.slice(2 * 192, 3 * 192), [1, 4, 6, 8]);
    const alone = await images({ prompt: 'dog', size: [12, 16], noise: third });
    const size = alone.data.length;
    expect(distance(ndarray(all.data.slice(2 * size, 3 * size), alone.shape), alone)).toBeLessThan(1e-4);
  });

  it('stays the nearer to a picture the less strength it has', async () => {
    const known = await pipeline.latents.decode(await pipeline.latents.encode(picture));
    const [little, much] = [
      await images({ image: picture, strength: 0.34 }),
      await images({ image: picture, strength: 1 }),
    ];
    expect(distance(little, known)).toBeLessThan(distance(much, known));
  });

  it.each([4, 9])('keeps what the mask does not say, with %i channels', async (inChannels) => {
    const unet = inChannels === 4 ? model : new UNet2DCondition({ ...unetOptions, inChannels }, new Generator(2));
    const painter = new TextToImage({ model: unet, vae, prompts, sampler: euler() });
    const options = { ...base, image: picture, mask: left };
    const [painted, latents] = [
      await painter.images(options),
      await pipeline.latents.encode(picture, new Generator(1)),
    ];
    expect(painted.shape).toEqual([1, 3, 16, 16]);
    if (inChannels === 9) return;
    let last: NdArray | undefined;
    for await (const { sample } of painter.sample(options)) last = sample;
    expect(distance(last!, latents, (i) => i % 8 >= 4)).toBeLessThan(1e-5);
    expect(distance(last!, latents, (i) => i % 8 < 4)).toBeGreaterThan(1e-2);
  });

  it('takes LoRAs and lets them go', async () => {
    const before = await images({});
    const path = 'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k';
    const file = new Map<string, NdArray>([
      [`${path}.lora_A.weight`, rng.randn([2, 6])],
      [`${path}.lora_B.weight`, rng.randn([8, 2])],
    ]);
    pipeline.addLora(loraLayers(file), 0.8);
    expect(distance(await images({}), before)).toBeGreaterThan(1e-4);
    pipeline.clearLoras();
    expect(numbers(await images({}))).toEqual(numbers(before));
  });

  it('takes LoRAs of text encoders', async () => {
    const tokenizer = trainTokenizer(['cat'], { vocabularySize: 514, modelMaxLength: 6 });
    const text = { vocabSize: 514, hiddenSize: 6, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 2 };
    const encoder = new CLIPTextModel({ ...text, maxPositionEmbeddings: 6, eosTokenId: 513 }, rng);
    const own = new TextToImage({ ...pipeline.parts, prompts: new ClipPrompts({ tokenizer, model: encoder }) });
    const before = await own.images(base);
    const [down, up] = [rng.randn([2, 6]), rng.randn([6, 2])];
    const named = (prefix: string) =>
      loraLayers(
        new Map<string, NdArray>([
          [`${prefix}_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight`, down],
          [`${prefix}_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight`, up],
        ]),
      );
    own.addLora(named('lora_te'), 0.5);
    const changed = await own.images(base);
    own.clearLoras();
    expect(numbers(await own.images(base))).toEqual(numbers(before));
    expect(distance(changed, before)).toBeGreaterThan(1e-5);

    const layer = [...encoder.namedModules()].find(([name]) => name.endsWith('q_proj'))![1] as Linear;
    const merged = Float32Array.from(layer.weight.value.data as Float32Array, (w, i) => {
      const [o, k] = [Math.floor(i / 6), i % 6];
      return w + 0.5 * (up.data[2 * o] * down.data[k] + up.data[2 * o + 1] * down.data[6 + k]);
    });
    layer.weight.set(ndarray(merged, [6, 6]));
    expect(distance(await own.images(base), changed)).toBeLessThan(1e-4);
    expect(() => own.addLora(named('lora_te2'))).toThrow(
      'LoRA: 1 of its layers are for text_encoder_2, which this model lacks: text_model_encoder_layers_0',
    );
  });

  it.each<[string, Partial<TextToImageOptions>]>([
    ['size 15x16 (height x width): expected multiples of 2', { size: [15, 16] }],
    ['mask: needs an image to paint on', { mask: left }],
    [
      'mask: expected [1, 1, 16, 16] as the image, got [1,1,8,8]',
      { image: picture, mask: ndarray(new Float32Array(64), [1, 1, 8, 8]) },
    ],
    ['strength 0: expected more than 0, at most 1', { image: picture, strength: 0 }],
    ['strength 0.1 of 3 steps is less than one step', { image: picture, strength: 0.1 }],
    ['2 negative prompts for 1 prompts, expected as many', { negativePrompt: ['a', 'b'] }],
    ['imagesPerPrompt 0: expected a whole number from 1', { imagesPerPrompt: 0 }],
    ['image [1,3,16,16]: expected [N, channels, 8,8]', { image: picture, size: [8, 8] }],
  ])('refuses: %s', async (message, options) => {
    await expect(images(options)).rejects.toThrow(message);
  });

  it('stops when told to', async () => {
    const controller = new AbortController();
    const steps = pipeline.sample({ ...base, signal: controller.signal });
    await steps.next();
    controller.abort();
    await expect(steps.next()).rejects.toThrow('aborted');
  });
});
