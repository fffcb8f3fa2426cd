import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { noiseSchedule } from '../diffusion/index.js';
import { AutoencoderKL, UNet2DCondition } from '../models/index.js';
import { inTraining } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { ddim, flowMatchEuler } from '../samplers/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import type { BatchOf } from '../training/index.js';
import { objectiveFor, textToImageLearner } from './textToImageLearner.js';

const rng = new Generator(0);
const stages = { blockOutChannels: [4], layersPerBlock: 1, normNumGroups: 2 };
const model = new UNet2DCondition(
  {
    ...stages,
    downBlockTypes: ['CrossAttnDownBlock2D'],
    upBlockTypes: ['CrossAttnUpBlock2D'],
    crossAttentionDim: 3,
    attentionHeadDim: 2,
  },
  rng,
);
const vae = new AutoencoderKL({ ...stages, scalingFactor: 0.5 }, rng);
const count = 400;
const system = (promptDropout: number) => ({
  model,
  vae,
  trained: { unet: model },
  objective: objectiveFor(ddim({ betaSchedule: 'scaled_linear' })),
  empty: { encoderHiddenStates: ndarray([9, 9, 9], [1, 1, 3]) },
  promptDropout,
});
const batch = {
  moments: ndarray(
    Array.from({ length: count * 8 * 4 }, (_, i) => (Math.floor(i / 16) % 2 === 0 ? 2 : -30)),
    [count, 8, 2, 2],
  ),
  encoderHiddenStates: ndarray(new Float32Array(count * 3).fill(1), [count, 1, 3]),
};

async function prepared(promptDropout: number) {
  const draws = new Generator(3);
  const learner = textToImageLearner(system(promptDropout), draws);
  const f = compile(
    (given: BatchOf<Tensor>) => inTraining(() => learner.prepare(given), draws) as Record<string, Tensor>,
  );
  const answer = await f(batch);
  await f.release();
  return answer;
}

describe('textToImageLearner', () => {
  it.each([0, 0.25, 1])('tells the empty prompt to a share of %d', async (share) => {
    const { encoderHiddenStates: told } = await prepared(share);
    const rows = Array.from({ length: count }, (_, i) => [...(told.data as Float32Array).slice(3 * i, 3 * i + 3)]);
    expect(rows.every((row) => `${row}` === '1,1,1' || `${row}` === '9,9,9')).toBe(true);
    const dropped = rows.filter(([first]) => first === 9).length / count;
    expect(Math.abs(dropped - share)).toBeLessThan(share === 0.25 ? 0.08 : 1e-9);
  });

  it('noises scaled latents', async () => {
    // The moments say mean 2 and next to no variance: scaled, 1.
    const { x, target, timestep } = await prepared(0);
    const { alphasCumprod } = noiseSchedule({ betaSchedule: 'scaled_linear' });
    for (const i of [0, 7, 399]) {
      const level = alphasCumprod[Number(timestep.data[i])];
      const noise = Number(target.data[i * 16]);
      expect(Number(x.data[i * 16])).toBeCloseTo(Math.sqrt(level) + Math.sqrt(1 - level) * noise, 4);
    }
  });

  it('trains nothing but what it is told to', () => {
    const { parameters } = textToImageLearner(system(0), rng);
    expect([...parameters.keys()]).toEqual([...model.namedParameters().keys()].map((name) => `unet.${name}`));
    expect(objectiveFor(flowMatchEuler()).predictionType).toBe('flow');
  });
});

describe('objectiveFor', () => {
  const x0 = new Generator(1).randn([500, 1, 1, 1]);
  const noisy = async (options: Parameters<typeof objectiveFor>[1], shift: number) => {
    const objective = objectiveFor(flowMatchEuler({ shift }), options);
    const draws = new Generator(5);
    const f = compile((x: Tensor) => {
      const batch = inTraining(() => objective.noisy(x, draws), draws);
      return Object.fromEntries(Object.entries(batch).filter(([, tensor]) => tensor !== undefined));
    });
    const answer = await f(x0);
    await f.release();
    return answer;
  };

  it("shifts a flow's noise levels as its sampler does", async () => {
    const [plain, shifted] = [await noisy({}, 1), await noisy({}, 3)];
    for (let i = 0; i < 500; i++) {
      const sigma = Number(plain.timestep.data[i]) / 1000;
      expect(Number(shifted.timestep.data[i]) / 1000).toBeCloseTo((3 * sigma) / (1 + 2 * sigma), 5);
    }
    expect('weight' in plain).toBe(false);
  });

  it('weights noise levels as the SD3 script does, and measures the clean latents if it is told to', async () => {
    const density = 'uniform';
    const [cosmap, both] = [
      await noisy({ density, weighting: 'cosmap' }, 1),
      await noisy({ density, weighting: 'cosmap', preconditionOutputs: true }, 1),
    ];
    for (let i = 0; i < 500; i++) {
      const sigma = Number(cosmap.timestep.data[i]) / 1000;
      const weight = 2 / (Math.PI * (1 - 2 * sigma + 2 * sigma ** 2));
      expect(Number(cosmap.weight.data[i])).toBeCloseTo(weight, 4);
      expect(Number(both.weight.data[i])).toBeCloseTo(weight * sigma ** 2, 4);
    }
  });
});
