import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import { subVpSde, veSde, vpSde } from '../diffusion/index.js';
import { cfg, type Guider } from '../guidance/index.js';
import type { Denoiser } from '../models/index.js';
import { Module } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { flowMatchEuler, predictorCorrectorFor, type Sampler } from '../samplers/index.js';
import { constant, gather, type Tensor } from '../tensor/index.js';
import {
  ddimGenerate,
  ddimInvert,
  interpolateImages,
  likelihood,
  sampleByFlow,
  sampleImages,
  scoreModel,
  slerp,
} from './index.js';

const means = [-0.3, 0.2, 0]; // of class 0, class 1, and no class
const std = 0.25;

/** The best rectified flow for pixels that are normal around their class's mean. */
class NormalPixels extends Module implements Denoiser {
  readonly config = {};
  readonly inChannels = 1;
  readonly outChannels = 1;
  readonly sampleSize = 4;
  readonly nullClass = 2;

  forward(x: Tensor, timestep: Tensor, classLabels?: Tensor): Tensor {
    const each = (values: Tensor) => values.reshape([-1, 1, 1, 1]);
    const sigma = each(timestep.div(1000));
    const alpha = sigma.neg().add(1);
    const mean = each(gather(constant(means), classLabels!, 0));
    const variance = alpha.mul(std).square().add(sigma.square());
    const away = x.sub(alpha.mul(mean));
    const x0 = mean.add(away.mul(alpha.mul(std ** 2)).div(variance));
    return away.mul(sigma).div(variance).sub(x0); // noise - x0
  }
}

const model = new NormalPixels();
const sampler = flowMatchEuler() as Sampler;
const classes = [...new Array(200).fill(0), ...new Array(200).fill(1)];

function meanAndStd(images: NdArray<'float32'>, half: 0 | 1): [number, number] {
  const part = images.data.slice((half * images.data.length) / 2, ((half + 1) * images.data.length) / 2);
  const mean = part.reduce((sum, x) => sum + x, 0) / part.length;
  return [mean, Math.sqrt(part.reduce((sum, x) => sum + (x - mean) ** 2, 0) / part.length)];
}

const expectClasses = (images: NdArray<'float32'>) => {
  for (const half of [0, 1] as const) {
    const [mean, deviation] = meanAndStd(images, half);
    expect(Math.abs(mean - means[half])).toBeLessThan(0.03);
    expect(Math.abs(deviation - std)).toBeLessThan(0.02);
  }
};

describe('a flow model as the score of an SDE', () => {
  it.each([vpSde(), subVpSde(), veSde()])('samples by the probability flow of $name', async (sde) => {
    const { images, evaluations } = await sampleByFlow({ model, sampler, sde, classes, rtol: 1e-4, atol: 1e-4 });
    expect(images.shape).toEqual([400, 1, 4, 4]);
    expect(evaluations).toBeGreaterThan(20);
    expectClasses(images);
  });

  it.each(['vp', 'subvp', 've'] as const)(
    'samples by predictor and corrector of %s, as any sampler does',
    async (sde) => {
      const pc = predictorCorrectorFor(sampler, { sde, snr: 0.1, predictor: 'reverse_diffusion' }) as Sampler;
      expectClasses(await sampleImages({ model, sampler: pc, plan: { steps: 120 }, classes, seed: 3 }));
    },
  );

  it('guides the score as it guides predictions', async () => {
    const guided = await sampleByFlow({
      model,
      sampler,
      classes: [0, 1],
      guidance: cfg(1.5),
      seed: 1,
      rtol: 1e-3,
      atol: 1e-3,
    });
    const plain = await sampleByFlow({ model, sampler, classes: [0, 1], seed: 1, rtol: 1e-3, atol: 1e-3 });
    const gap = (images: NdArray<'float32'>) => meanAndStd(images, 1)[0] - meanAndStd(images, 0)[0];
    expect(gap(guided.images)).toBeGreaterThan(gap(plain.images) + 0.1);
  });

  it('measures likelihoods', async () => {
    const levels = new Generator(4).randint(60, 200, [3, 1, 4, 4]);
    const images = ndarray(
      Float32Array.from(levels.data, (x) => Number(x) / 127.5 - 1),
      [3, 1, 4, 4],
    );
    const { bitsPerDimension } = await likelihood({ model, sampler, images, classes: [0, 1, 2], from: 1e-4 });
    for (const [n, label] of [0, 1, 2].entries()) {
      const squares =
        images.data.slice(16 * n, 16 * (n + 1)).reduce((sum, x) => sum + ((x - means[label]) / std) ** 2, 0) / 16;
      const nats = 0.5 * (squares + Math.log(2 * Math.PI * std ** 2));
      expect(Math.abs(bitsPerDimension[n] - (nats / Math.LN2 + 7))).toBeLessThan(0.04); // where in its bin, at random
    }
  });

  it('refuses what it cannot be', async () => {
    const carrying = { ...cfg(2), slots: 1 } as Guider;
    expect(() => scoreModel({ model, sampler, classes: [0], guidance: carrying })).toThrow('got one with momentum');
    expect(() => scoreModel({ model, sampler, classes: [3] })).toThrow('class label 3 out of range 0..1');
    const { score } = scoreModel({ model, sampler, classes: [0] });
    await expect(score(ndarray(new Float32Array(32), [2, 1, 4, 4]), 0.5)).rejects.toThrow('2 samples, but 1 classes');
  });
});

describe('ddim inversion', () => {
  const images = ndarray(
    new Generator(9).randn([2, 1, 4, 4]).data.map((z) => z * std),
    [2, 1, 4, 4],
  );

  it('finds the noise that leads to an image', async () => {
    const latents = await ddimInvert({ model, sampler, images, steps: 200 });
    expect(meanAndStd(latents, 0)[1] / (meanAndStd(images, 0)[1] / std)).toBeCloseTo(1, 1);
    const back = await ddimGenerate({ model, sampler, latents, steps: 200 });
    for (const [i, x] of images.data.entries()) expect(Math.abs(back.data[i] - x)).toBeLessThan(0.05);
  });

  it('interpolates between two images, both ends included', async () => {
    const steps: number[] = [];
    const options = { model, sampler, images, steps: 100, classes: [2, 2], onStep: (done: number) => steps.push(done) };
    const strip = await interpolateImages({ ...options, count: 3 });
    expect(strip.shape).toEqual([3, 1, 4, 4]);
    expect(steps).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
    for (const [i, x] of images.data.slice(0, 16).entries()) expect(Math.abs(strip.data[i] - x)).toBeLessThan(0.1);
    await expect(interpolateImages({ ...options, count: 1 })).rejects.toThrow('at least 2, got 1');
  });

  it('moves along the sphere', () => {
    const [a, b] = [Float32Array.of(2, 0), Float32Array.of(0, 2)];
    expect(Math.hypot(...slerp(a, b, 0.3))).toBeCloseTo(2, 6);
    expect([...slerp(a, b, 0.5)].map((x) => x / Math.SQRT2)).toEqual([expect.closeTo(1, 6), expect.closeTo(1, 6)]);
    expect([...slerp(a, a, 0.5)]).toEqual([2, 0]);
  });
});
