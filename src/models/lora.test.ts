import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Conv2d, Linear, Module, withLowRank } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { Lora, loraFor, loraLayers } from './lora.js';
import { UNet2DCondition } from './unet2dCondition.js';

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

  it.each<[string, string, string]>([
    // diffusers before 0.21, for a UNet and for a text encoder
    ['unet.mid.attn1.processor.to_q_lora.down.weight', 'unet', 'mid.attn1.to_q'],
    ['unet.mid.attn1.processor.to_out_lora.down.weight', 'unet', 'mid.attn1.to_out.0'],
    [
      'text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora.down.weight',
      'text_encoder',
      'text_model.encoder.layers.1.self_attn.out_proj',
    ],
    // diffusers and PEFT today
    [
      'text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight',
      'text_encoder_2',
      'text_model.encoder.layers.0.self_attn.q_proj',
    ],
    [
      'text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight',
      'text_encoder',
      'text_model.encoder.layers.0.mlp.fc1',
    ],
    ['base_model.model.mid.attn1.to_q.lora_A.default.weight', 'unet', 'mid.attn1.to_q'],
    [
      'transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight',
      'transformer',
      'transformer_blocks.0.attn.add_k_proj',
    ],
    // kohya
    [
      'lora_te_text_model_encoder_layers_0_self_attn_k_proj.lora_down.weight',
      'text_encoder',
      'text_model_encoder_layers_0_self_attn_k_proj',
    ],
    [
      'lora_te1_text_model_encoder_layers_0_mlp_fc2.lora_down.weight',
      'text_encoder',
      'text_model_encoder_layers_0_mlp_fc2',
    ],
    ['lora_te2_text_projection.lora_down.weight', 'text_encoder_2', 'text_projection'],
  ])('reads %s', (name, target, path) => {
    const other = name.replace('.down.', '.up.').replace('lora_down', 'lora_up').replace('lora_A', 'lora_B');
    const layers = loraLayers(
      new Map([
        [name, q.down],
        [other, q.up],
      ]),
    );
    expect(layers).toMatchObject([{ target, path }]);
  });

  it("finds SDXL's layers under the names of CompVis' code and of diffusers", () => {
    const unet = new UNet2DCondition(
      {
        blockOutChannels: [4, 4, 4],
        layersPerBlock: 2,
        normNumGroups: 2,
        downBlockTypes: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
        upBlockTypes: ['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
        crossAttentionDim: 4,
        attentionHeadDim: 2,
        useLinearProjection: true,
        additionEmbedType: 'text_time',
        additionTimeEmbedDim: 2,
        projectionClassEmbeddingsInputDim: 16,
      },
      new Generator(0),
    );
    const names = new Map([...unet.namedModules()].map(([name, layer]) => [layer, name]));
    const places = {
      input_blocks_0_0: 'conv_in',
      time_embed_0: 'time_embedding.linear_1',
      label_emb_0_2: 'add_embedding.linear_2',
      input_blocks_1_0_emb_layers_1: 'down_blocks.0.resnets.0.time_emb_proj',
      input_blocks_3_0_op: 'down_blocks.0.downsamplers.0.conv',
      input_blocks_4_1_transformer_blocks_0_attn1_to_k: 'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k',
      input_blocks_8_1_proj_in: 'down_blocks.2.attentions.1.proj_in',
      middle_block_1_transformer_blocks_0_ff_net_0_proj: 'mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj',
      middle_block_2_out_layers_3: 'mid_block.resnets.1.conv2',
      output_blocks_2_2_conv: 'up_blocks.0.upsamplers.0.conv',
      output_blocks_5_1_transformer_blocks_0_attn2_to_out_0:
        'up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0',
      output_blocks_6_0_skip_connection: 'up_blocks.2.resnets.0.conv_shortcut',
      out_2: 'conv_out',
      up_blocks_0_attentions_0_proj_out: 'up_blocks.0.attentions.0.proj_out',
    };
    const layerAt = (path: string) => [...unet.namedModules()].find(([name]) => name === path)![1] as Linear | Conv2d;
    const file = new Map<string, NdArray>();
    for (const [theirs, ours] of Object.entries(places)) {
      const [out, ...inner] = layerAt(ours).weight.shape;
      file.set(`lora_unet_${theirs}.lora_down.weight`, rng.randn([1, ...inner]));
      file.set(`lora_unet_${theirs}.lora_up.weight`, rng.randn([out, 1, ...inner.slice(1).map(() => 1)]));
      file.set(`lora_unet_${theirs}.alpha`, ndarray([1], []));
    }
    const found = [...loraFor(unet, loraLayers(file)).keys()].map((layer) => names.get(layer));
    expect(found).toEqual(Object.values(places));
    const [first] = file.keys();
    file.set(first.replace('input_blocks_0_0', 'input_blocks_9_0_op'), file.get(first)!);
    file.set(first.replace('input_blocks_0_0', 'input_blocks_9_0_op').replace('down', 'up'), rng.randn([4, 1, 1, 1]));
    expect(() => loraFor(unet, loraLayers(file))).toThrow(
      '1 of its 15 layers do not fit this UNet2DCondition: input_blocks_9_0_op',
    );
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
