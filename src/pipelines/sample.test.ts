import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { cfg } from '../guidance/index.js';
import { DiT, UNet2D, unet2dPresets } from '../models/index.js';
import { Generator } from '../random/index.js';
import { ddim, ddpm, flowMatchEuler } from '../samplers/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { predict } from './predict.js';
import { sample, sampleImages } from './sample.js';

/** A DiT whose head is not zero, so that its predictions differ from class to class. */
function smallDiT(): DiT {
  const rng = new Generator(3);
  const model = new DiT(
    {
      numAttentionHeads: 2,
      attentionHeadDim: 8,
      numLayers: 2,
      sampleSize: 8,
      patchSize: 4,
      inChannels: 1,
      numEmbedsAdaNorm: 3,
    },
    rng,
  );
  for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.1));
  return model;
}

describe('sample', () => {
  const model = smallDiT();
  const plan = { steps: 4 };

  it('repeats itself from a seed, and differs with another', async () => {
    const make = (seed: number) => sampleImages({ model, sampler: ddpm(), plan, classes: [0, 1, 2], seed });
    const [a, b, c] = [await make(1), await make(1), await make(2)];
    expect(a.shape).toEqual([3, 1, 8, 8]);
    expect(a.data).toEqual(b.data);
    expect(a.data).not.toEqual(c.data);
  });

  it('is the conditional prediction at guidance 1 and the null class at guidance 0', async () => {
    const make = (guidance: number, classes: number[]) =>
      sampleImages({ model, sampler: ddim(), plan, classes, guidance: cfg(guidance) });
    expect((await make(1, [1])).data).toEqual(
      (await sampleImages({ model, sampler: ddim(), plan, classes: [1] })).data,
    );
    expect((await make(0, [1])).data).toEqual((await make(1, [3])).data);
    expect((await make(3, [1])).data).not.toEqual((await make(1, [1])).data);
  });

  it('interleaves two generations from one sampler', async () => {
    const sampler = flowMatchEuler();
    const run = (seed: number) => sample({ model, sampler, plan, classes: [0], seed });
    const [a, b] = [run(1), run(2)];
    const last: Record<string, unknown> = {};
    for (let k = 0; k < 4; k++) {
      last.a = (await a.next()).value;
      last.b = (await b.next()).value;
    }
    const alone = await sampleImages({ model, sampler, plan, classes: [0], seed: 2 });
    expect((last.b as { sample: { data: unknown } }).sample.data).toEqual(alone.data);
    await a.return();
    await b.return();
  });

  it('stops when told to, and names a class that is out of range', async () => {
    const stop = new AbortController();
    const run = sample({ model, sampler: ddim(), plan, classes: [0], signal: stop.signal });
    await run.next();
    stop.abort();
    await expect(run.next()).rejects.toThrow('abort');
    await expect(sampleImages({ model, sampler: ddim(), plan, classes: [12] })).rejects.toThrow(
      'DiT: class label 12 out of range 0..2',
    );
  });

  it('takes models without classes', async () => {
    const unet = new UNet2D({ ...unet2dPresets.tiny, sampleSize: 8, inChannels: 1, outChannels: 1 }, new Generator(0));
    const images = await sampleImages({ model: unet, sampler: ddim(), plan, classes: [0, 0] });
    expect(images.shape).toEqual([2, 1, 8, 8]);
    await expect(sampleImages({ model: unet, sampler: ddim(), plan, classes: [0], guidance: cfg(3) })).rejects.toThrow(
      'this guidance needs an unconditional prediction',
    );
  });

  it('predicts in parts what it predicts whole', async () => {
    const rng = new Generator(0);
    const [x, t, labels] = [
      rng.randn([24, 1, 32, 32]),
      ndarray(new Float32Array(24).fill(500)),
      rng.randint(0, 3, [24]),
    ];
    const whole = compile((x: Tensor, t: Tensor, c: Tensor) => model.forward(x, t, c));
    const parts = compile((x: Tensor, t: Tensor, c: Tensor) => predict(model, x, t, c));
    const [a, b] = [await whole(x, t, labels), await parts(x, t, labels)];
    for (const [i, value] of (a.data as Float32Array).entries())
      expect(Math.abs(value - Number(b.data[i]))).toBeLessThan(1e-5);
  });
});
