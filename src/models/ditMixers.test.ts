import { describe, expect, test } from 'vitest';
import { ndarray } from '../array/index.js';
import { tokenMixers } from '../nn/index.js';
import { Generator, normalWeights } from '../random/index.js';
import { compile, gradients, type Tensor } from '../tensor/index.js';
import { configFromJson, configToJson, DiT, ditConfig } from './index.js';

const size = {
  numAttentionHeads: 2,
  attentionHeadDim: 8,
  inChannels: 1,
  numLayers: 1,
  sampleSize: 8,
  numEmbedsAdaNorm: 3,
};

describe('DiT with another mixer', () => {
  test.each(tokenMixers)('%s: every parameter learns, and the last token reaches the first', async (mixer) => {
    const model = new DiT({ ...size, mixer }, new Generator(0));
    // adaLN-Zero's gates and the head start at zero and would hide the rest.
    for (const v of model.parameters())
      if (v.value.data.every((x) => x === 0)) v.set(normalWeights(new Generator(1), v.shape, { std: 0.3 }));
    const names = [...model.namedParameters()].filter(([name]) => name.includes('.mixer.'));
    expect(names.length).toBeGreaterThan(3);
    const run = compile((x: Tensor, t: Tensor, y: Tensor) => {
      const out = model.forward(x, t, y);
      const corner = out.slice(2, 0, 2).slice(3, 0, 2).square().sum();
      return {
        corner: gradients(corner, [x])[0],
        slopes: gradients(
          out.square().sum(),
          names.map(([, v]) => v),
        ),
      };
    });
    const x = normalWeights(new Generator(2), [1, 1, 8, 8]);
    const { corner, slopes } = await run(x, ndarray([500]), ndarray([1], [1], 'int64'));
    expect(Math.abs(Number(corner.data[63]))).toBeGreaterThan(0);
    for (const [i, slope] of slopes.entries()) {
      const largest = Math.max(...Array.from(slope.data as Float32Array, Math.abs));
      expect(largest, names[i][0]).toBeGreaterThan(0);
      expect(largest, names[i][0]).toBeLessThan(1e6);
    }
    await run.release();
  });

  test('the config tells of the mixer, and of softmax nothing', () => {
    const written = (mixer?: 'softmax' | 'linear') =>
      JSON.parse(JSON.stringify(configToJson(DiT.className, new DiT({ ...size, mixer }, new Generator(0)).config)));
    expect(written()).not.toHaveProperty('mixer');
    expect(written('softmax')).toEqual(written());
    expect(configFromJson(DiT.className, ditConfig, written('linear')).mixer).toBe('linear');
    expect(() => new DiT({ ...size, mixer: 'fourier' as 'linear' }, new Generator(0))).toThrow('mixer');
  });
});
