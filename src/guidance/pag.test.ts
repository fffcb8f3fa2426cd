import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { DiT, UNet2D } from '../models/index.js';
import { withPerturbations } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, constant, flops, type Tensor } from '../tensor/index.js';
import { cfg, chosenLayers, guide, type Layers, pag, perturbable, positive } from './index.js';

const rng = new Generator(0);
const dit = new DiT(
  { numAttentionHeads: 2, attentionHeadDim: 4, numLayers: 6, sampleSize: 4, patchSize: 2, inChannels: 1 },
  rng,
);
const unet = new UNet2D(
  {
    sampleSize: 8,
    inChannels: 1,
    outChannels: 1,
    blockOutChannels: [8, 16],
    layersPerBlock: 1,
    normNumGroups: 4,
    downBlockTypes: ['DownBlock2D', 'AttnDownBlock2D'],
    upBlockTypes: ['AttnUpBlock2D', 'UpBlock2D'],
  },
  rng,
);
const step = (index: number, total = 10) => ({ index, total, timestep: 0 });

describe('chosenLayers', () => {
  const nameOf = new Map([...dit.namedModules(), ...unet.namedModules()].map(([name, layer]) => [layer, name]));
  const names = (model: DiT | UNet2D, layers?: Layers, kind: 'attention' | 'block' | 'feedForward' = 'attention') =>
    chosenLayers(model, kind, layers).map((layer) => nameOf.get(layer));

  it('takes numbers, patterns and both, of attention, feed-forward layers and blocks', () => {
    expect(names(dit, [1, -1])).toEqual(['transformer_blocks.1.attn1', 'transformer_blocks.5.attn1']);
    expect(names(dit, 'blocks.(2|3)', 'feedForward')).toEqual(['transformer_blocks.2.ff', 'transformer_blocks.3.ff']);
    expect(names(dit, [0, /blocks\.0/], 'block')).toEqual(['transformer_blocks.0']);
    expect(names(unet, 'up')).toEqual(['up_blocks.0.attentions.0', 'up_blocks.0.attentions.1']);
    expect(names(unet, 0)).toEqual(['down_blocks.1.attentions.0']);
  });

  it("is the last third of the blocks, or the U-Net's middle, when nobody says", () => {
    expect(names(dit)).toEqual(['transformer_blocks.4.attn1', 'transformer_blocks.5.attn1']);
    expect(names(unet)).toEqual(['mid_block.attentions.0']);
  });

  it('tells block 1 from block 10', () => {
    const deep = new DiT({ ...dit.config, numLayers: 11 }, rng);
    expect(chosenLayers(deep, 'block', 'blocks.1')).toEqual([deep.transformerBlocks[1]]);
  });

  it('lists the names when nothing fits', () => {
    expect(() => names(unet, 'attn1')).toThrow(
      "no self-attention of UNet2D is named like 'attn1'; expected -4..3 or part of down_blocks.1.attentions.0, mid_block.attentions.0, up_blocks.0.attentions.0, up_blocks.0.attentions.1",
    );
    expect(() => names(dit, 6)).toThrow('no self-attention of DiT is number 6; expected -6..5');
    expect(() => names(unet, 0, 'block')).toThrow('UNet2D has no transformer block to perturb');
    expect(perturbable(unet, 'block')).toEqual([]);
  });
});

describe('pag', () => {
  const [identity] = pag(2, { layers: [4, 5] })
    .branches(step(0))
    .slice(1);
  const x = constant(rng.randn([2, 1, 4, 4]));
  const [timestep, labels] = [constant([1, 2]), constant([0, 1], 'int64')];
  const forward = () => dit.forward(x, timestep, labels);

  it('re-runs only what comes after the first perturbed layer', () => {
    const plain = forward();
    const perturbed = withPerturbations(identity.perturb!(dit, [4, 4]), forward);
    expect(perturbed).not.toBe(plain);
    const ratio = flops([plain, perturbed]) / flops([plain]);
    expect(ratio).toBeGreaterThan(1.05);
    expect(ratio).toBeLessThan(1.36);
  });

  it('adds to the conditional prediction what the perturbed one lacks; 0 is off, in the standard convention 1', async () => {
    const { branches, combine, inputs } = pag(2);
    expect(branches(step(0)).map((branch) => branch.condition)).toEqual(['positive', 'positive']);
    const run = compile((given: Tensor, p: readonly Tensor[]) => {
      const names = branches(step(0)).map((branch) => branch.name);
      return combine(new Map(p.map((prediction, i) => [names[i], prediction])), given, []).prediction;
    });
    const p = [ndarray([1, 2], [1, 2]), ndarray([0, 4], [1, 2])];
    expect([...(await run(ndarray([...inputs(step(0))]), p)).data]).toEqual([3, -2]);
    expect(pag(0).branches(step(0))).toEqual([positive]);
    expect(pag(1, { convention: 'standard' }).branches(step(0))).toEqual([positive]);
    expect(pag(3, { convention: 'standard' }).inputs(step(0))[0]).toBe(2);
  });

  it('goes with classifier-free guidance, and costs nothing outside its interval', async () => {
    const both = guide(cfg(4), pag(2, { interval: [0.5, 1] }));
    expect(both.branches(step(0)).length).toBe(2);
    expect(both.branches(step(5)).length).toBe(3);
    const names = both.branches(step(5)).map((branch) => branch.name);
    const run = compile(
      (given: Tensor, p: readonly Tensor[]) =>
        both.combine(new Map(p.map((prediction, i) => [names[i], prediction])), given, []).prediction,
    );
    const p = [1, 0, 3].map((value) => ndarray([value], [1, 1]));
    expect([...(await run(ndarray([...both.inputs(step(5))]), p)).data]).toEqual([0]);
    // At a step where it is off, its branch may be there for another guider's sake.
    expect([...(await run(ndarray([...both.inputs(step(0))]), p)).data]).toEqual([4]);
  });
});
