import { expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { noiseSchedule } from '../diffusion/index.js';
import type { Denoiser } from '../models/index.js';
import { Module } from '../nn/index.js';
import { ddim, dpmSolverMultistep, euler, heun, type Sampler } from '../samplers/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { sampleImages } from './sample.js';
import { VariancePreservingFlow } from './variancePreservingFlow.js';

/** Knows that every picture is 0.5 everywhere: at time t its x is 0.5 (1 - t) + t noise. */
class Known extends Module implements Denoiser {
  readonly config = {};
  readonly inChannels = 1;
  readonly outChannels = 1;
  readonly sampleSize = 2;
  forward(x: Tensor, timestep: Tensor): Tensor {
    return x.sub(0.5).div(timestep.div(1000).reshape([-1, 1, 1, 1]));
  }
}

it('predicts v of the variance preserving process', async () => {
  const model = new VariancePreservingFlow(new Known());
  const run = compile((x: Tensor, t: Tensor) => model.forward(x, t));
  const [x0, noise] = [0.5, -0.8];
  const { alphasCumprod } = noiseSchedule();
  const at = (alphaBar: number) => {
    const [alpha, sigma] = [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)];
    return { x: alpha * x0 + sigma * noise, v: alpha * noise - sigma * x0 };
  };
  const ratio = (t: number) => Math.sqrt((1 - alphasCumprod[t]) / alphasCumprod[t]);
  const between = Math.sqrt(ratio(300) * ratio(301)); // half way in the logarithm
  const cases = [at(alphasCumprod[20]), at(alphasCumprod[999]), at(1 / (1 + between ** 2))];
  const x = ndarray(
    cases.map((c) => c.x),
    [3, 1, 1, 1],
  );
  const v = await run(x, ndarray([20, 999, 300.5]));
  for (const [i, c] of cases.entries()) expect(v.data[i]).toBeCloseTo(c.v, 4);
});

it.each([
  ['ddim', ddim({ predictionType: 'v_prediction', clipSample: false }) as Sampler],
  ['euler', euler({ predictionType: 'v_prediction' }) as Sampler],
  [
    'heun with fractional timesteps',
    heun({ ...VariancePreservingFlow.betas, predictionType: 'v_prediction', useKarrasSigmas: true }) as Sampler,
  ],
  ['dpmpp-2m', dpmSolverMultistep({ predictionType: 'v_prediction' }) as Sampler],
])('%s finds the picture that a flow model knows', async (_, sampler) => {
  const images = await sampleImages({
    model: new VariancePreservingFlow(new Known()),
    sampler,
    plan: { steps: 6 },
    classes: [0, 0],
  });
  for (const pixel of images.data) expect(pixel).toBeCloseTo(0.5, 2);
});

it('refuses a learned variance', () => {
  const model = Object.assign(new Known(), { outChannels: 2 });
  expect(() => new VariancePreservingFlow(model)).toThrow('the model gives 2 channels for 1, expected as many');
});
