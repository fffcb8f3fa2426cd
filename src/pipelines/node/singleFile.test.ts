import { mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StoredArray } from '../../array/index.js';
import { ldmUnetName, ldmVaeName, loraFor, UNet2DCondition } from '../../models/index.js';
import { Generator } from '../../random/index.js';
import { Pipeline } from './pipeline.js';
import { loadSingleFile } from './singleFile.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'single-'));
  const letters = [...'abc'].flatMap((letter) => [letter, `${letter}</w>`]);
  const tokens = [...letters, '<|startoftext|>', '<|endoftext|>'];
  await writeFile(
    join(folder, 'vocab.json'),
    JSON.stringify(Object.fromEntries(tokens.map((token, id) => [token, id]))),
  );
  await writeFile(join(folder, 'merges.txt'), '#version: 0.2\n');
});
afterAll(() => rm(folder, { recursive: true }));

/** A file of that many half floats, all zeros that take no room on the disk. */
async function sparseFile(name: string, shapes: ReadonlyMap<string, readonly number[]>): Promise<string> {
  let end = 0;
  const entries = [...shapes].map(([key, shape]) => {
    const begin = end;
    end += 2 * shape.reduce((n, d) => n * d, 1);
    return [key, { dtype: 'F16', shape, data_offsets: [begin, end] }];
  });
  const json = JSON.stringify(Object.fromEntries(entries));
  const header = new Uint8Array(8 + json.length);
  new DataView(header.buffer).setBigUint64(0, BigInt(json.length), true);
  header.set(new TextEncoder().encode(json), 8);
  const path = join(folder, name);
  const file = await open(path, 'w');
  await file.write(header);
  await file.close();
  await truncate(path, header.length + end);
  return path;
}

describe("CompVis' names", () => {
  it.each([
    ['time_embedding.linear_2.bias', 'time_embed.2.bias'],
    ['down_blocks.0.resnets.1.conv1.weight', 'input_blocks.2.0.in_layers.2.weight'],
    ['down_blocks.0.downsamplers.0.conv.weight', 'input_blocks.3.0.op.weight'],
    ['down_blocks.3.resnets.1.conv2.bias', 'input_blocks.11.0.out_layers.3.bias'],
    ['down_blocks.2.attentions.1.proj_in.weight', 'input_blocks.8.1.proj_in.weight'],
    ['mid_block.resnets.1.time_emb_proj.weight', 'middle_block.2.emb_layers.1.weight'],
    ['up_blocks.0.upsamplers.0.conv.weight', 'output_blocks.2.1.conv.weight'],
    ['up_blocks.2.upsamplers.0.conv.weight', 'output_blocks.8.2.conv.weight'],
    [
      'up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k.weight',
      'output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight',
    ],
    ['up_blocks.1.resnets.0.conv_shortcut.weight', 'output_blocks.3.0.skip_connection.weight'],
    ['conv_norm_out.weight', 'out.0.weight'],
  ])('%s of the UNet is %s', (ours, theirs) => {
    expect(ldmUnetName(ours, 2, [false, true, true, true])).toBe(theirs);
  });

  it.each([
    ['encoder.down_blocks.1.resnets.0.conv_shortcut.weight', 'encoder.down.1.block.0.nin_shortcut.weight'],
    ['encoder.down_blocks.2.downsamplers.0.conv.bias', 'encoder.down.2.downsample.conv.bias'],
    ['decoder.up_blocks.0.resnets.2.conv1.weight', 'decoder.up.3.block.2.conv1.weight'],
    ['decoder.up_blocks.2.upsamplers.0.conv.weight', 'decoder.up.1.upsample.conv.weight'],
    ['decoder.mid_block.attentions.0.to_out.0.weight', 'decoder.mid.attn_1.proj_out.weight'],
    ['encoder.mid_block.resnets.1.norm2.bias', 'encoder.mid.block_2.norm2.bias'],
    ['encoder.conv_norm_out.bias', 'encoder.norm_out.bias'],
    ['post_quant_conv.weight', 'post_quant_conv.weight'],
  ])('%s of the autoencoder is %s', (ours, theirs) => {
    expect(ldmVaeName(ours, 4)).toBe(theirs);
  });
});

describe('a single-file checkpoint', () => {
  it('opens with all its weights in their places, left in the file', async () => {
    const shapes = new Map<string, readonly number[]>([
      ['model.diffusion_model.input_blocks.0.0.weight', [320, 4, 3, 3]],
      ['model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight', [320, 768]],
      ['model_ema.decay', []],
    ]);
    // Each failure names a weight that is missing: with all of them, the file is that of the whole model.
    const blank = await import('../../models/node/index.js').then(({ Blank }) => new Blank());
    const { AutoencoderKL, CLIPTextModel } = await import('../../models/index.js');
    const unet = new UNet2DCondition({ crossAttentionDim: 768 }, blank);
    for (const [name, { shape }] of unet.namedVariables())
      shapes.set(`model.diffusion_model.${ldmUnetName(name, 2, [false, true, true, true])}`, shape);
    const stages = ['DownEncoderBlock2D', 'DownEncoderBlock2D', 'DownEncoderBlock2D', 'DownEncoderBlock2D'] as const;
    const vae = new AutoencoderKL(
      {
        blockOutChannels: [128, 256, 512, 512],
        layersPerBlock: 2,
        downBlockTypes: [...stages],
        upBlockTypes: stages.map(() => 'UpDecoderBlock2D' as const),
      },
      blank,
    );
    for (const [name, { shape }] of vae.namedVariables()) {
      const convolution = /attentions\.0\.to_.*weight$/.test(name);
      shapes.set(`first_stage_model.${ldmVaeName(name, 4)}`, convolution ? [...shape, 1, 1] : shape);
    }
    const text = new CLIPTextModel({ hiddenSize: 768, intermediateSize: 3072, numAttentionHeads: 12 }, blank);
    for (const [name, { shape }] of text.namedVariables()) shapes.set(`cond_stage_model.transformer.${name}`, shape);
    expect(new Set(shapes.keys()).size).toBe(
      3 - 2 + unet.namedVariables().size + vae.namedVariables().size + text.namedVariables().size,
    );

    const { parts } = await loadSingleFile(await sparseFile('sd.safetensors', shapes), { tokenizer: folder });
    const weight = (parts.model as UNet2DCondition).convOut.weight.value;
    expect(weight).toBeInstanceOf(StoredArray);
    expect((weight as StoredArray).stored).toMatchObject({ dtype: 'float16' });
    expect(parts.sampler.className).toBe('PNDMScheduler');
    const asked = Pipeline.fromPretrained(join(folder, 'sd.safetensors'), { kind: 'class-conditional' });
    await expect(asked).rejects.toThrow('a text-to-image pipeline, expected a class-conditional one');
  }, 60_000);

  it('is refused when it is of another family, or not whole', async () => {
    const other = await sparseFile('other.safetensors', new Map([['x', [2]]]));
    await expect(loadSingleFile(other)).rejects.toThrow('no single-file checkpoint of Stable Diffusion');
    const [first, key] = ['input_blocks.0.0.weight', 'input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight'].map(
      (name) => `model.diffusion_model.${name}`,
    );
    const sd2 = await sparseFile(
      'sd2.safetensors',
      new Map([
        [first, [320, 4, 3, 3]],
        [key, [320, 1024]],
      ]),
    );
    await expect(loadSingleFile(sd2)).rejects.toThrow('of another family than Stable Diffusion 1.x');
    const part = await sparseFile(
      'part.safetensors',
      new Map([
        [first, [320, 4, 3, 3]],
        [key, [320, 768]],
      ]),
    );
    await expect(loadSingleFile(part)).rejects.toThrow('is missing');
  }, 60_000);
});

describe('a LoRA in the names of single files', () => {
  it('finds its layers in a UNet', () => {
    const unet = new UNet2DCondition(
      {
        blockOutChannels: [8, 8],
        downBlockTypes: ['CrossAttnDownBlock2D', 'DownBlock2D'],
        upBlockTypes: ['UpBlock2D', 'CrossAttnUpBlock2D'],
        layersPerBlock: 1,
        crossAttentionDim: 6,
        attentionHeadDim: 2,
        normNumGroups: 4,
      },
      new Generator(0),
    );
    const rng = new Generator(0);
    const path = 'input_blocks_1_1_transformer_blocks_0_attn2_to_k';
    const changes = loraFor(unet, [{ target: 'unet', path, down: rng.randn([2, 6]), up: rng.randn([8, 2]) }]);
    expect(changes.size).toBe(1);
  });
});
