import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { DiT, type DiTOptions } from './dit.js';

const small: DiTOptions = {
  numAttentionHeads: 2,
  attentionHeadDim: 8,
  numLayers: 2,
  sampleSize: 8,
  inChannels: 3,
  numEmbedsAdaNorm: 4,
};
const int64 = (...values: number[]) => ndarray(values, undefined, 'int64');

async function predict(model: DiT, x: NdArray, labels: NdArray): Promise<NdArray> {
  const run = compile((x: Tensor, t: Tensor, y: Tensor) => model.forward(x, t, y));
  const y = await run(x, ndarray(new Float32Array(x.shape[0]).fill(500)), labels);
  await run.release();
  return y;
}

/** Moves every weight away from zero, where gates and heads begin. */
function shaken(model: DiT): DiT {
  const rng = new Generator(5);
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.2));
  return model;
}

describe('DiT', () => {
  it('predicts nothing at first, and depends on its label later', async () => {
    const x = new Generator(1).randn([2, 3, 8, 8]);
    const model = new DiT(small, new Generator(0));
    expect(Math.max(...((await predict(model, x, int64(0, 1))).data as Float32Array).map(Math.abs))).toBe(0);
    shaken(model);
    const one = await predict(model, x, int64(0, 1));
    const other = await predict(model, x, int64(0, model.nullClass));
    const half = one.data.length / 2;
    expect(one.data.slice(0, half)).toEqual(other.data.slice(0, half));
    expect(one.data.slice(half)).not.toEqual(other.data.slice(half));
  });

  it('takes images of other sizes and shapes, and makes more channels for a learned variance', async () => {
    const model = shaken(new DiT({ ...small, outChannels: 6 }, new Generator(0)));
    const y = await predict(model, new Generator(1).randn([1, 3, 12, 4]), int64(2));
    expect(y.shape).toEqual([1, 6, 12, 4]);
    expect([model.inChannels, model.outChannels, model.sampleSize, model.nullClass]).toEqual([3, 6, 8, 4]);
  });

  it("has diffusers' checkpoint keys", () => {
    const names = [...new DiT(small, new Generator(0)).namedVariables().keys()];
    for (const name of [
      'pos_embed.proj.weight',
      'transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.weight',
      'transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight',
      'transformer_blocks.0.norm1.linear.bias',
      'transformer_blocks.0.attn1.to_out.0.bias',
      'transformer_blocks.0.ff.net.0.proj.weight',
      'transformer_blocks.0.ff.net.2.bias',
      'proj_out_1.weight',
      'proj_out_2.bias',
    ])
      expect(names).toContain(name);
    expect(names).not.toContain('transformer_blocks.0.norm3.weight');
    const affine = new DiT({ ...small, normElementwiseAffine: true }, new Generator(0));
    expect([...affine.namedVariables().keys()]).toContain('transformer_blocks.0.norm3.weight');
  });

  it('refuses what does not fit', async () => {
    const make = (options: object) => () => new DiT({ ...small, ...options }, new Generator(0));
    expect(make({ patchSize: 3 })).toThrow('DiT: patches of 3 do not tile an image of 8');
    expect(make({ normType: 'layer_norm' })).toThrow(/DiTTransformer2DModel: normType: .*got "layer_norm"/);
    expect(make({ numlayers: 3 })).toThrow(/numlayers/);
    const model = make({})();
    await expect(predict(model, new Generator(0).randn([1, 3, 8, 9]), int64(0))).rejects.toThrow(
      'DiT: patches of 2 do not tile images of 8x9',
    );
    const unlabelled = compile((x: Tensor, t: Tensor) => model.forward(x, t));
    await expect(unlabelled(new Generator(0).randn([1, 3, 8, 8]), int64(0))).rejects.toThrow(
      'DiT: needs class labels; 4 stands for no class',
    );
  });
});
