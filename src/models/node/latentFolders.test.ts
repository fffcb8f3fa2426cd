import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readJson, readSafetensors, writeSafetensors } from '../../io/node/index.js';
import { Generator } from '../../random/index.js';
import { AutoencoderKL } from '../autoencoderKl.js';
import { AutoencoderTiny } from '../autoencoderTiny.js';
import { ControlNet } from '../controlNet.js';
import { UNet2DCondition } from '../unet2dCondition.js';
import { loadComponent, saveModel } from './modelFolder.js';

const blocks = {
  downBlockTypes: ['CrossAttnDownBlock2D'],
  blockOutChannels: [4],
  layersPerBlock: 1,
  normNumGroups: 2,
  crossAttentionDim: 4,
  attentionHeadDim: 2,
} as const;
const rng = () => new Generator(1);
const unet = new UNet2DCondition(
  {
    ...blocks,
    downBlockTypes: [...blocks.downBlockTypes],
    blockOutChannels: [4],
    upBlockTypes: ['CrossAttnUpBlock2D'],
  },
  rng(),
);
const vae = new AutoencoderKL({ blockOutChannels: [4], normNumGroups: 2 }, rng());
const models = [
  unet,
  vae,
  new AutoencoderTiny(
    { encoderBlockOutChannels: [4], decoderBlockOutChannels: [4], numEncoderBlocks: [1], numDecoderBlocks: [1] },
    rng(),
  ),
  ControlNet.fromUNet(unet, { conditioningEmbeddingOutChannels: [4, 4] }, rng()),
];

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'noisewright-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

for (const model of models) {
  const Class = model.constructor as unknown as { className: string };
  it(`${Class.className}: a folder gives back what was saved`, async () => {
    const folder = join(root, Class.className);
    await saveModel(folder, model);
    const back = await loadComponent(folder);
    expect(back).toBeInstanceOf(model.constructor);
    expect(back.config).toEqual(model.config);
    expect(back.stateDict()).toEqual(model.stateDict());
    const config = await readJson<Record<string, unknown>>(join(folder, 'config.json'));
    expect(config._class_name).toBe(Class.className);
    expect(Object.keys(config).every((name) => !/[A-Z]/.test(name))).toBe(true);
  });
}

it('an old autoencoder names its attention otherwise', async () => {
  const folder = join(root, 'old');
  await saveModel(folder, vae);
  const path = join(folder, 'diffusion_pytorch_model.safetensors');
  const { tensors } = await readSafetensors(path);
  const names = { to_q: 'query', to_k: 'key', to_v: 'value', 'to_out.0': 'proj_attn' };
  const old = [...tensors].map(([name, array]) => {
    const found = Object.entries(names).find(([now]) => name.includes(`attentions.0.${now}.`));
    return [found ? name.replace(found[0], found[1]) : name, array] as const;
  });
  expect(old.some(([name]) => name === 'encoder.mid_block.attentions.0.query.weight')).toBe(true);
  await writeSafetensors(path, new Map(old));
  expect((await loadComponent(folder)).stateDict()).toEqual(vae.stateDict());
});
