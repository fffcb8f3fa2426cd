import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Conv2d, Linear, Module, withLowRank } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { Lora, loraFor, loraLayers } from './lora.js';

class Attention extends Module {
  readonly toQ: Linear;
  readonly toOut: readonly Linear[];
  constructor(rng: Generator) {
    super();
    this.toQ = new Linear(6, 8, rng);
    this.toOut = [new Linear(8, 6, rng)];
  }
}

class Model extends Module {
  readonly convIn: Conv2d;
  readonly attn_1: Attention;
  constructor(rng: Generator) {
    super();
    this.convIn = new Conv2d(3, 6, 3, { padding: 1 }, rng);
    this.attn_1 = new Attention(rng);
  }
  forward(x: Tensor): Tensor {
    const tokens = this.convIn.forward(x).reshape([x.shape[0], 6, -1]).transpose([0, 2, 1]);
    return this.attn_1.toOut[0].forward(this.attn_1.toQ.forward(tokens).tanh());
  }
}

const rng = new Generator(3);
const model = new Model(rng);
const x = rng.randn([2, 3, 4, 4]);
const answer = compile((x: Tensor) => model.forward(x));
const numbers = (array: NdArray) => [...(array.data as Float32Array)];

/** W + scale up down, on the host. */
function merged(layer: Linear | Conv2d, down: NdArray<'float32'>, up: NdArray<'float32'>, scale: number): NdArray {
  const { shape, value } = layer.weight;
  const [rank, inner] = [down.shape[0], down.data.length / down.shape[0]];
  const sum = (value.data as Float32Array).map((w, at) => {
    const [o, i] = [Math.floor(at / inner), at % inner];
    for (let r = 0; r < rank; r++) w += scale * up.data[o * rank + r] * down.data[r * inner + i];
    return w;
  });
  return ndarray(sum as Float32Array<ArrayBuffer>, shape);
}

const close = (a: readonly number[], b: readonly number[]) =>
  expect(Math.max(...a.map((value, i) => Math.abs(value - b[i])))).toBeLessThan(1e-5);

describe('LoRA', () => {
  const q = { down: rng.randn([2, 6]), up: rng.randn([8, 2]) };
  const conv = { down: rng.randn([2, 3, 3, 3]), up: rng.randn([6, 2, 1, 1]) };

  it.each([
    [
      "diffusers'",
      'unet.attn_1.to_q.lora.down.weight',
      'unet.attn_1.to_q.lora.up.weight',
      'unet.conv_in.lora.down.weight',
      'unet.conv_in.lora.up.weight',
      'unet.conv_in.alpha',
    ],
    [
      "PEFT's",
      'unet.attn_1.to_q.lora_A.weight',
      'unet.attn_1.to_q.lora_B.weight',
      'unet.conv_in.lora_A.weight',
      'unet.conv_in.lora_B.weight',
      'unet.conv_in.alpha',
    ],
    [
      "kohya's",
      'lora_unet_attn_1_to_q.lora_down.weight',
      'lora_unet_attn_1_to_q.lora_up.weight',
      'lora_unet_conv_in.lora_down.weight',
      'lora_unet_conv_in.lora_up.weight',
      'lora_unet_conv_in.alpha',
    ],
  ])('in %s names changes the weights it names', async (_, qDown, qUp, convDown, convUp, alpha) => {
    const file = new Map<string, NdArray>([
      [qDown, q.down],
      [qUp, q.up],
      [convDown, conv.down],
      [convUp, conv.up],
      [alpha, ndarray([1], [])],
    ]);
    const layers = loraLayers(file);
    expect(layers.every(({ target }) => target === 'unet')).toBe(true);
    const changed = compile((x: Tensor) => withLowRank(loraFor(model, layers, 0.7), () => model.forward(x)));
    const twin = new Model(new Generator(3));
    twin.loadStateDict(model.stateDict());
    twin.attn_1.toQ.weight.set(merged(model.attn_1.toQ, q.down, q.up, 0.7));
    twin.convIn.weight.set(merged(model.convIn, conv.down, conv.up, 0.7 / 2));
    const expected = await compile((x: Tensor) => twin.forward(x))(x);
    close(numbers(await changed(x)), numbers(expected));
    expect(numbers(await answer(x))).not.toEqual(numbers(expected));
  });

  it('names the layers of another architecture', () => {
    const file = new Map<string, NdArray>([
      ['unet.mid_block.to_q.lora_A.weight', q.down],
      ['unet.mid_block.to_q.lora_B.weight', q.up],
      ['unet.attn_1.to_q.lora_A.weight', rng.randn([2, 9])],
      ['unet.attn_1.to_q.lora_B.weight', q.up],
    ]);
    expect(() => loraFor(model, loraLayers(file))).toThrow(
      'made for another architecture: 2 of its 2 layers do not fit this Model: mid_block.to_q, attn_1.to_q (8 from 9, the model has [8,6])',
    );
  });

  it('refuses other methods and halves', () => {
    expect(() => loraLayers(new Map([['unet.attn_1.to_q.hada_w1_a', q.down]]))).toThrow(
      'hada_w1_a: no low-rank factor',
    );
    expect(() => loraLayers(new Map([['unet.attn_1.to_q.lora_A.weight', q.down]]))).toThrow(
      'attn_1.to_q has no up factor',
    );
  });

  it('begins as no change, learns, and is written as diffusers reads it', async () => {
    const lora = new Lora(model, { rank: 2, alpha: 4 }, new Generator(1));
    const under = (x: Tensor) => withLowRank(lora.changes(), () => model.forward(x));
    close(numbers(await compile(under)(x)), numbers(await answer(x)));
    const parameters = lora.parameters();
    expect(parameters).toHaveLength(4);
    const step = compile((x: Tensor) => {
      const loss = under(x).sub(1).square().mean();
      for (const [i, g] of gradients(loss, parameters).entries()) parameters[i].assign(parameters[i].sub(g.mul(0.2)));
      return loss;
    });
    const losses: number[] = [];
    for (let i = 0; i < 30; i++) losses.push(Number((await step(x)).data[0]));
    expect(losses.at(-1)).toBeLessThan(losses[0] * 0.9);
    const file = await lora.toTensors('unet');
    expect([...file.keys()]).toEqual(
      ['attn_1.to_q', 'attn_1.to_out.0'].flatMap((path) => [
        `unet.${path}.lora.down.weight`,
        `unet.${path}.lora.up.weight`,
        `unet.${path}.alpha`,
      ]),
    );
    const opened = compile((x: Tensor) => withLowRank(loraFor(model, loraLayers(file)), () => model.forward(x)));
    close(numbers(await opened(x)), numbers(await compile(under)(x)));
  });

  it('names the layers to choose from when none matches', () => {
    expect(() => new Lora(model, { targets: /nothing/ }, rng)).toThrow(
      'no layer of Model matches /nothing/; it has conv_in, attn_1.to_q, attn_1.to_out.0',
    );
  });
});
