import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import type { Module } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { ControlNet } from './controlNet.js';
import { Lora } from './lora.js';
import { modelToJson } from './registry.js';
import { SD3Transformer2D } from './sd3Transformer2d.js';
import { UNet2DCondition } from './unet2dCondition.js';

const rng = new Generator(0);
const stages = { layersPerBlock: 2, normNumGroups: 2, crossAttentionDim: 4, attentionHeadDim: 2 };
const sd1 = new UNet2DCondition(
  {
    ...stages,
    blockOutChannels: [4, 4],
    downBlockTypes: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    upBlockTypes: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  },
  rng,
);
const sdxl = new UNet2DCondition(
  {
    ...stages,
    blockOutChannels: [4, 4],
    downBlockTypes: ['DownBlock2D', 'CrossAttnDownBlock2D'],
    upBlockTypes: ['CrossAttnUpBlock2D', 'UpBlock2D'],
    transformerLayersPerBlock: [1, 2],
    useLinearProjection: true,
    additionEmbedType: 'text_time',
    additionTimeEmbedDim: 2,
    projectionClassEmbeddingsInputDim: 16,
  },
  rng,
);
const sd3 = new SD3Transformer2D(
  {
    sampleSize: 4,
    inChannels: 4,
    outChannels: 4,
    numLayers: 2,
    attentionHeadDim: 4,
    numAttentionHeads: 1,
    jointAttentionDim: 4,
    captionProjectionDim: 4,
    pooledProjectionDim: 4,
    posEmbedMaxSize: 4,
    dualAttentionLayers: [0],
  },
  rng,
);

/** The parameters of diffusers' ControlNetModel, which are its config.json. */
const controlNetFields = `in_channels conditioning_channels flip_sin_to_cos freq_shift down_block_types mid_block_type
  only_cross_attention block_out_channels layers_per_block downsample_padding mid_block_scale_factor act_fn norm_num_groups
  norm_eps cross_attention_dim transformer_layers_per_block encoder_hid_dim encoder_hid_dim_type attention_head_dim
  num_attention_heads use_linear_projection class_embed_type addition_embed_type addition_time_embed_dim num_class_embeds
  upcast_attention resnet_time_scale_shift projection_class_embeddings_input_dim controlnet_conditioning_channel_order
  conditioning_embedding_out_channels global_pool_conditions addition_embed_type_num_heads`.split(/\s+/);

describe.each([
  ['SD 1', sd1],
  ['SDXL', sdxl],
])('a ControlNet of %s', (_, unet) => {
  const net = ControlNet.fromUNet(unet, {}, rng);

  it("has no fields but those of diffusers' config.json", () => {
    const { _class_name: className, _diffusers_version: version, ...config } = modelToJson(net);
    expect([className, typeof version]).toEqual(['ControlNetModel', 'string']);
    expect(Object.keys(config).filter((name) => !controlNetFields.includes(name))).toEqual([]);
    // Left out is what diffusers takes for None.
    const none = /^(encoder_hid|class_embed_type|num_class_embeds|num_attention_heads|addition_|projection_class)/;
    expect(controlNetFields.filter((name) => !(name in config || none.test(name)))).toEqual([]);
    for (const [name, value] of Object.entries(config)) {
      const theirs = modelToJson(unet)[name];
      if (theirs !== undefined) expect([name, value]).toEqual([name, theirs]);
    }
  });

  it("has the weights of the UNet's way down, a hint's way in, and one way out for each skip", () => {
    const copied = [...unet.stateDict().keys()].filter((name) =>
      /^(conv_in|time_embedding|add_embedding|down_blocks|mid_block)\./.test(name),
    );
    const both = (layer: string) => [`${layer}.weight`, `${layer}.bias`];
    const hint = ['conv_in', 'conv_out', ...Array.from({ length: 6 }, (_, i) => `blocks.${i}`)];
    // conv_in, and in both stages two layers and, in the first, the way down.
    const skips = Array.from({ length: 6 }, (_, i) => `controlnet_down_blocks.${i}`);
    const own = [...hint.map((name) => `controlnet_cond_embedding.${name}`), ...skips, 'controlnet_mid_block'];
    expect([...net.stateDict().keys()].sort()).toEqual([...copied, ...own.flatMap(both)].sort());
  });
});

const layersOf = async (model: Module, target: 'unet' | 'transformer') =>
  [...(await new Lora(model, { rank: 2, alpha: 4 }, rng).toTensors(target)).keys()].sort();

describe('a LoRA', () => {
  it.each([
    ['SD 1', sd1, ['down_blocks.0.attentions.0', 'down_blocks.0.attentions.1'], 'up_blocks.1', 1],
    ['SDXL', sdxl, ['down_blocks.1.attentions.0', 'down_blocks.1.attentions.1'], 'up_blocks.0', 2],
  ] as const)('of %s has the names that train_text_to_image_lora writes', async (_, unet, down, up, depth) => {
    const places = [...down, 'mid_block.attentions.0', ...[0, 1, 2].map((i) => `${up}.attentions.${i}`)];
    const expected = places.flatMap((place, at) =>
      // The middle is as deep as the lowest stage.
      Array.from({ length: at === 2 && unet === sd1 ? 1 : depth }, (_, block) => block).flatMap((block) =>
        ['attn1', 'attn2'].flatMap((attention) =>
          ['to_q', 'to_k', 'to_v', 'to_out.0'].flatMap((layer) =>
            ['down', 'up'].map(
              (half) => `unet.${place}.transformer_blocks.${block}.${attention}.${layer}.lora.${half}.weight`,
            ),
          ),
        ),
      ),
    );
    expect(await layersOf(unet, 'unet')).toEqual(expected.sort());
  });

  it('of SD 3 has the names that train_dreambooth_lora_sd3 writes', async () => {
    const layers = ['to_q', 'to_k', 'to_v', 'to_out.0', 'add_q_proj', 'add_k_proj', 'add_v_proj', 'to_add_out'];
    const expected = [0, 1].flatMap((block) =>
      layers
        // The last block's text is not looked at again.
        .filter((layer) => block === 0 || layer !== 'to_add_out')
        .flatMap((layer) =>
          ['lora_A', 'lora_B'].map((half) => `transformer.transformer_blocks.${block}.attn.${layer}.${half}.weight`),
        ),
    );
    expect(await layersOf(sd3, 'transformer')).toEqual(expected.sort());
  });

  it('says its scale in its weights, since diffusers takes the rank for alpha', async () => {
    const lora = new Lora(sd1, { rank: 2, alpha: 6 }, rng);
    const [factors] = lora.layers;
    const { shape, size } = factors.up;
    factors.up.set(ndarray(new Float32Array(size).fill(1), shape));
    const tensors = [...(await lora.toTensors('unet'))];
    expect(new Set(tensors.find(([name]) => name.endsWith('up.weight'))![1].data as Float32Array)).toEqual(
      new Set([3]),
    );
    expect(tensors.every(([name]) => name.includes('lora'))).toBe(true);
  });
});
