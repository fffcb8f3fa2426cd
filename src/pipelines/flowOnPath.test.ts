import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { affinePathOf, flowPaths } from '../diffusion/index.js';
import type { Denoiser } from '../models/index.js';
import { Module } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { flowMatchEuler } from '../samplers/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { asRectifiedFlow, FlowOnPath } from './flowOnPath.js';
import { sampleImages } from './sample.js';

const [mean, deviation] = [0.3, 0.5];

/** The best model there is of normally distributed data, on any path, told 1000 (1 - t). */
class Exact extends Module implements Denoiser {
  readonly config = {};
  readonly inChannels = 1;
  readonly outChannels = 1;
  readonly sampleSize = 2;
  constructor(private readonly flow: Parameters<typeof affinePathOf>[0]) {
    super();
  }
  forward(x: Tensor, timestep: Tensor): Tensor {
    const t = timestep.div(1000).neg().add(1).reshape([-1, 1, 1, 1]);
    const { alpha, sigma, dAlpha, dSigma } = affinePathOf(this.flow).at(t);
    const spread = alpha.mul(deviation).square().add(sigma.square());
    const rest = x.sub(alpha.mul(mean)).div(spread);
    const data = rest
      .mul(alpha)
      .mul(deviation ** 2)
      .add(mean);
    return data.mul(dAlpha).add(rest.mul(sigma).mul(dSigma)).neg();
  }
}
const exact = (path: (typeof flowPaths)[number]) => {
  const flow = { path, pathPower: 2, bridgeSigma: 0.5 };
  return asRectifiedFlow(new Exact(flow), flow);
};

describe.each(flowPaths.filter((path) => path !== 'cond-ot'))('a model of the path %s', (path) => {
  it('becomes the same model of rectified flow', async () => {
    const [plain, model] = [exact('cond-ot'), exact(path)];
    expect(model).toBeInstanceOf(FlowOnPath);
    const timesteps = ndarray([50, 200, 500, 800, 980]);
    const x = new Generator(0).randn([5, 1, 2, 2]);
    const both = compile((x: Tensor, t: Tensor) => [plain.forward(x, t), model.forward(x, t)]);
    const [expected, came] = await both(x, timesteps);
    for (const [i, v] of expected.data.entries()) expect(Number(came.data[i])).toBeCloseTo(Number(v), 2);
  });

  it('is sampled as such', async () => {
    const options = { sampler: flowMatchEuler(), plan: { steps: 40 }, classes: [0, 0, 0], seed: 1 };
    const [expected, came] = [
      await sampleImages({ ...options, model: exact('cond-ot') }),
      await sampleImages({ ...options, model: exact(path) }),
    ];
    for (const [i, v] of expected.data.entries()) expect(came.data[i]).toBeCloseTo(v, 1);
  });
});
