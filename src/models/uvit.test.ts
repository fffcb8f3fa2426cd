import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { Attention } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { UViT } from './uvit.js';

const rng = new Generator(0);
const model = new UViT(
  { imgSize: 8, patchSize: 2, inChans: 1, embedDim: 8, depth: 4, numHeads: 2, numClasses: 4 },
  rng,
);
const labels = ndarray([0, 3], [2], 'int64');
const times = ndarray([10, 500]);
const predict = compile((x: Tensor, t: Tensor, y: Tensor) => model.forward(x, t, y));

describe('UViT', () => {
  it('answers images with images, and hears time and class', async () => {
    const x = rng.randn([2, 1, 8, 8]);
    const y = await predict(x, times, labels);
    expect(y.shape).toEqual([2, 1, 8, 8]);
    const others = [
      await predict(x, ndarray([11, 501]), labels),
      await predict(x, times, ndarray([1, 2], [2], 'int64')),
    ];
    for (const other of others) expect([...other.data]).not.toEqual([...y.data]);
    expect(model.nullClass).toBe(3);
  });

  it('says what does not fit', async () => {
    expect(() => new UViT({ depth: 3 }, rng)).toThrow('depth 3, expected an even number');
    expect(() => new UViT({ imgSize: 9, patchSize: 2 }, rng)).toThrow('patches of 2 do not tile an image of 9');
    expect(() => new UViT({ embedDim: 10, numHeads: 3 }, rng)).toThrow('3 heads do not divide embedDim 10');
    await expect(predict(rng.randn([2, 1, 6, 6]), times, labels)).rejects.toThrow('images of 6x6, expected 8x8');
  });

  it('has attention that guidance can perturb', () => {
    const layers = [...model.namedModules()].filter(([, layer]) => layer instanceof Attention);
    expect(layers.map(([name]) => name)).toContain('mid_block.attn');
  });
});
