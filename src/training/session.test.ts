import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { arrayDataset, batches } from '../data/index.js';
import { DiT } from '../models/index.js';
import { Generator } from '../random/index.js';
import { DivergedError, TrainingSession, type TrainOptions, trainConfig } from './index.js';

const rng = new Generator(5);
const dataset = arrayDataset(
  rng.uniform([24, 1, 8, 8], -1, 1),
  ndarray(
    [...Array(24).keys()].map((i) => i % 3),
    [24],
    'int64',
  ),
);

function session(options: Partial<TrainOptions> = {}, outChannels = 1): TrainingSession {
  const config = trainConfig.parse({
    model: 'DiTTransformer2DModel',
    data: '',
    batch: 8,
    steps: 6,
    warmup: 2,
    clipNorm: 1,
    ...options,
  });
  const model = new DiT(
    {
      numAttentionHeads: 2,
      attentionHeadDim: 8,
      numLayers: 2,
      sampleSize: 8,
      patchSize: 4,
      inChannels: 1,
      outChannels,
      numEmbedsAdaNorm: 3,
    },
    new Generator(0),
  );
  return new TrainingSession(model, config);
}

async function losses(s: TrainingSession): Promise<number[]> {
  const { batch, seed } = s.config;
  const list: number[] = [];
  for await (const { loss } of s.run(batches(dataset, { batch, seed, position: s.position }))) list.push(loss);
  return list;
}

describe('TrainingSession', () => {
  it.each([{}, { predict: 'flow', coupling: 'ot', path: 'schrodinger-bridge' }] as const)(
    'continues from a saved state bit for bit: %j',
    async (options) => {
      const whole = session(options);
      const expected = await losses(whole);
      const first = session({ ...options, steps: 3 });
      const before = await losses(first);
      const state = new Map(
        [...(await first.state())].map(([name, array]) => [
          name,
          { ...array, data: array.data.slice() } as typeof array,
        ]),
      );
      const second = session(options);
      second.restore(state, first.step, first.position);
      expect([...before, ...(await losses(second))]).toEqual(expected);
      for (const [name, array] of await whole.state())
        expect((await second.state()).get(name)!.data, name).toEqual(array.data);
    },
  );

  it('refuses a state of another model, and changes nothing', async () => {
    const s = session();
    const state = await s.state();
    const [name] = [...state.keys()].filter((key) => key.startsWith('ema.'));
    state.delete(name);
    expect(() => s.restore(state, 1, s.position)).toThrow(`training state: ${name} is missing`);
  });

  for (const options of [
    { predict: 'epsilon' },
    { predict: 'x0' },
    { predict: 'v', zeroTerminalSnr: true },
    { predict: 'flow', flowWeighting: 'cosmap', timestepDensity: 'mode' },
    { predict: 'epsilon', minSnrGamma: 5, optimizer: 'sgd', learningRate: 0.05 },
    { predict: 'epsilon', accumulate: 2 },
  ] as const)
    it(`learns: ${JSON.stringify(options)}`, async () => {
      const s = session({ steps: 40, learningRate: 3e-3, ...options });
      const list = await losses(s);
      const mean = (part: number[]) => part.reduce((a, b) => a + b) / part.length;
      expect(mean(list.slice(-10))).toBeLessThan(mean(list.slice(0, 10)));
    });

  it.each([
    { path: 'vp', coupling: 'ot' },
    { path: 'linear-vp' },
    { path: 'cosine', timestepDensity: 'u_shaped' },
    { path: 'polynomial', pathPower: 3 },
    { path: 'schrodinger-bridge', bridgeSigma: 0.2 },
  ] as const)('learns a flow, seen on the same noise as one that does not learn: %j', async (options) => {
    const mean = async (learningRate: number) => {
      const list = await losses(session({ predict: 'flow', steps: 40, learningRate, ...options }));
      return list.slice(-20).reduce((a, b) => a + b) / 20;
    };
    expect(await mean(3e-3)).toBeLessThan(0.98 * (await mean(1e-12)));
  });

  it('learns the variance, too', async () => {
    const list = await losses(session({ steps: 12, learnVariance: true }, 2));
    expect(list.every(Number.isFinite)).toBe(true);
    expect(() => session({ learnVariance: true, predict: 'flow' }, 2)).toThrow(
      'learnVariance does not go with predict flow',
    );
  });

  it('refuses settings of flows beside others', () => {
    expect(() => session({ coupling: 'ot' })).toThrow('coupling ot is for predict flow, not for epsilon');
    expect(() => session({ path: 'vp', predict: 'v' })).toThrow('path vp is for predict flow, not for v');
    expect(() => session({ path: 'vp', predict: 'flow', flowWeighting: 'cosmap' })).toThrow(
      'flowWeighting cosmap is for the path cond-ot, not for vp',
    );
  });

  it('stops with a diagnosis when the loss is no number', async () => {
    const s = session();
    s.model.parameters()[0].value.data.fill(Number.NaN as never);
    await expect(losses(s)).rejects.toThrow(DivergedError);
    expect(s.step).toBe(0);
  });
});
