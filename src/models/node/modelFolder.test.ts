import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type NdArray, ndarray, toFloat32 } from '../../array/index.js';
import { readSafetensorsHeader, writeSafetensors } from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { denoiserClass } from '../registry.js';
import { UNet2D } from '../unet2d.js';
import { loadModel, saveModel } from './modelFolder.js';

const weightsFile = 'diffusion_pytorch_model.safetensors';
const format = { channels: 1, size: 8, classes: 3 };
const dit = () =>
  denoiserClass('dit').create({ numAttentionHeads: 1, attentionHeadDim: 8, numLayers: 1 }, format, new Generator(1));
const unet = () =>
  new UNet2D(
    {
      sampleSize: 8,
      blockOutChannels: [4, 8],
      downBlockTypes: ['DownBlock2D', 'AttnDownBlock2D'],
      upBlockTypes: ['AttnUpBlock2D', 'UpBlock2D'],
      layersPerBlock: 1,
      attentionHeadDim: 4,
      normNumGroups: 2,
    },
    new Generator(1),
  );

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));
let count = 0;
const fresh = () => join(root, `model-${count++}`);

/** A saved DiT, to be spoilt. */
async function saved(): Promise<string> {
  const folder = fresh();
  await saveModel(folder, dit());
  return folder;
}

describe('model folders', () => {
  it('give back what was saved, with every config field', async () => {
    for (const model of [dit(), unet()]) {
      const folder = fresh();
      await saveModel(folder, model);
      expect((await readdir(folder)).sort()).toEqual(['config.json', weightsFile]);
      const json = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
      expect(Object.keys(json).slice(0, 2)).toEqual(['_class_name', '_diffusers_version']);
      const back = await loadModel(folder);
      expect(back.config).toEqual(model.config);
      expect(back.stateDict()).toEqual(model.stateDict());
    }
  });

  it('hold 16-bit floats, and other weights than the model has', async () => {
    const model = dit();
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const folder = fresh();
      const weights = new Map(
        [...model.stateDict()].map(([name, { shape, data }]) => [
          name,
          ndarray(
            Float32Array.from(data as Float32Array, (w) => w + 0.25),
            shape,
          ),
        ]),
      );
      await saveModel(folder, model, { weights, dtype });
      const { tensors, metadata } = await readSafetensorsHeader(join(folder, weightsFile));
      expect(new Set([...tensors.values()].map((entry) => entry.dtype))).toEqual(new Set([dtype]));
      expect(metadata).toEqual({ format: 'pt' });
      for (const [name, { data }] of (await loadModel(folder)).stateDict())
        for (const [i, w] of (data as Float32Array).entries())
          expect(Math.abs(w - (weights.get(name)!.data[i] as number))).toBeLessThanOrEqual(
            Math.abs(w) * 2 ** -8 + 1e-6,
          );
    }
  });

  it('are read in parts', async () => {
    const folder = await saved();
    const state = [...dit().stateDict()];
    await rm(join(folder, weightsFile));
    const parts = [state.slice(0, 5), state.slice(5)].map((part) => new Map(part));
    const file = (i: number) => `diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`;
    const places = parts.flatMap((part, i) => [...part.keys()].map((name) => [name, file(i)]));
    for (const [i, part] of parts.entries()) await writeSafetensors(join(folder, file(i)), part);
    const index = join(folder, `${weightsFile}.index.json`);
    await writeFile(index, JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(places) }));
    expect((await loadModel(folder)).stateDict()).toEqual(new Map(state));

    const lying = { ...Object.fromEntries(places), [state[0][0]]: file(1) };
    await writeFile(index, JSON.stringify({ weight_map: lying }));
    await expect(loadModel(folder)).rejects.toThrow(`cannot read ${index}: ${state[0][0]} is not in ${file(1)}`);
    await writeFile(index, JSON.stringify({ weight_map: { [state[0][0]]: '../elsewhere.safetensors' } }));
    await expect(loadModel(folder)).rejects.toThrow("'../elsewhere.safetensors' is no file name");
    await writeFile(index, JSON.stringify({ weight_map: 3 }));
    await expect(loadModel(folder)).rejects.toThrow(/weight_map/);
  });

  it('of old UNets name their attention otherwise', async () => {
    const [folder, model] = [fresh(), unet()];
    await saveModel(folder, model);
    const old = [...model.stateDict()].map(([name, array]): [string, NdArray] => [
      name
        .replace(/(attentions\.\d+)\.to_q/, '$1.query')
        .replace(/(attentions\.\d+)\.to_k/, '$1.key')
        .replace(/(attentions\.\d+)\.to_v/, '$1.value')
        .replace(/(attentions\.\d+)\.to_out\.0/, '$1.proj_attn'),
      array,
    ]);
    await writeSafetensors(join(folder, weightsFile), new Map(old));
    expect((await loadModel(folder)).stateDict()).toEqual(model.stateDict());
  });

  it('name the file at fault', async () => {
    await expect(loadModel(join(root, 'none'))).rejects.toThrow(/cannot read .*none.config\.json: no such file/);
    const folder = await saved();
    const path = join(folder, 'config.json');
    const good = JSON.parse(await readFile(path, 'utf8'));
    const withConfig = async (json: unknown) => {
      await writeFile(path, typeof json === 'string' ? json : JSON.stringify(json));
      return loadModel(folder);
    };
    await expect(withConfig('{"_class_name": ')).rejects.toThrow(`cannot read ${path}: not valid JSON`);
    for (const json of [null, [], 'x', 3].map((value) => JSON.stringify(value)))
      await expect(withConfig(json)).rejects.toThrow(`cannot read ${path}: model: _class_name: expected one of`);
    await expect(withConfig({ ...good, _class_name: 'VQModel' })).rejects.toThrow(/got "VQModel"/);
    await expect(withConfig({ ...good, activation_fn: 'sine' })).rejects.toThrow(
      /config\.json: DiTTransformer2DModel: activationFn: expected one of .*got "sine"/,
    );
    await expect(withConfig({ ...good, num_heads: 3 })).rejects.toThrow(/numHeads/);
    await expect(withConfig({ ...good, patch_size: 3 })).rejects.toThrow(/patches of 3 do not tile an image of 8/);
    await expect(withConfig({ ...good, num_layers: 2 })).rejects.toThrow(
      /DiT: the checkpoint does not fit: missing transformer_blocks\.1\./,
    );
    await expect(withConfig({ ...good, num_embeds_ada_norm: 7 })).rejects.toThrow(
      /embedding_table\.weight has shape \[8,8\], the checkpoint's is \[4,8\]/,
    );
    await withConfig(good);

    const extra = new Map([...dit().stateDict(), ['pos_embed.pos_embed', ndarray([1])]]);
    await writeSafetensors(join(folder, weightsFile), extra);
    await expect(loadModel(folder)).rejects.toThrow(
      `cannot read ${folder}: DiT: the checkpoint does not fit: unexpected pos_embed.pos_embed`,
    );
    await rm(join(folder, weightsFile));
    await expect(loadModel(folder)).rejects.toThrow(`cannot read ${join(folder, weightsFile)}: no such file`);
  });

  it('that were cut short are refused, wherever the cut', async () => {
    const folder = await saved();
    const path = join(folder, weightsFile);
    const bytes = await readFile(path);
    const rng = new Generator(0);
    const cuts = [0, 7, 8, 100, bytes.length - 1, ...rng.randperm(bytes.length).slice(0, 20)];
    for (const cut of cuts) {
      await writeFile(path, bytes.subarray(0, cut));
      await expect(loadModel(folder), `cut at ${cut}`).rejects.toThrow(`cannot read ${path}: safetensors:`);
    }
  });

  it('are not replaced by weights that do not fit', async () => {
    const folder = await saved();
    const model = dit();
    const good = model.stateDict();
    const [name, first] = [...good][0];
    const put = (array: NdArray | undefined) =>
      saveModel(folder, model, {
        weights: new Map([...good].flatMap(([n, a]) => (n === name ? (array ? [[n, array]] : []) : [[n, a]]))),
      });
    await expect(put(undefined)).rejects.toThrow(`no weights for ${name}`);
    await expect(put(ndarray([1, 2]))).rejects.toThrow(`${name} is [2], expected [${first.shape}]`);
    const nan = toFloat32({ ...first, data: first.data.slice() } as NdArray);
    nan.data[0] = Number.NaN;
    await expect(put(nan)).rejects.toThrow(`${name} has values that are not finite in float32`);
    const more = new Map([...good, ['more', ndarray([1])]]);
    await expect(saveModel(folder, model, { weights: more })).rejects.toThrow('unexpected weights more');
    const large = ndarray(new Float32Array(first.data.length).fill(1e5), first.shape);
    const wide = new Map([...good, [name, large]]);
    await expect(saveModel(folder, model, { weights: wide, dtype: 'float16' })).rejects.toThrow(
      /not finite in float16/,
    );
    expect((await loadModel(folder)).stateDict()).toEqual(good);
  });

  it('are written whole or not at all', async () => {
    const folder = fresh();
    await mkdir(root, { recursive: true });
    await writeFile(folder, 'a file in the way');
    await expect(saveModel(folder, dit())).rejects.toThrow(`cannot write ${folder}: there is a file of that name`);
    expect((await readdir(root)).filter((entry) => entry.startsWith('.'))).toEqual([]);
  });
});
