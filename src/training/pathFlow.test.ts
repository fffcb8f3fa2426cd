import { describe, expect, it } from 'vitest';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { type Objective, rectifiedFlow } from './objective.js';
import { pathFlow } from './pathFlow.js';

const data = new Generator(1).randn([4, 1, 2, 2]);
const noisy = (objective: Objective) => {
  const rng = new Generator(0);
  return compile((x: Tensor) => {
    const { x: noised, timestep, target } = objective.noisy(x, rng);
    return { noised, timestep, target };
  })(data);
};

describe('pathFlow', () => {
  it('is rectified flow on cond-ot, and on a bridge of no width', async () => {
    const expected = await noisy(rectifiedFlow());
    for (const objective of [pathFlow({ path: 'cond-ot' }), pathFlow({ path: 'schrodinger-bridge', bridgeSigma: 0 })])
      for (const [name, array] of Object.entries(await noisy(objective)))
        for (const [i, value] of expected[name as keyof typeof expected].data.entries())
          expect(Number(array.data[i]), name).toBeCloseTo(Number(value), name === 'timestep' ? 2 : 5);
  });

  it('keeps away from both ends', async () => {
    const at = async (logitMean: number) =>
      Array.from((await noisy(pathFlow({ path: 'linear-vp', logitMean }))).timestep.data, Number);
    for (const t of await at(50)) expect(t).toBeCloseTo(1, 3);
    for (const t of await at(-50)) expect(t).toBeCloseTo(999, 3);
  });

  it('refuses what no path can be', async () => {
    await expect(noisy(pathFlow({ path: 'polynomial', pathPower: 0 }))).rejects.toThrow('polynomialPath: n 0');
  });
});
