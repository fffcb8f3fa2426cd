import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray, zeros } from '../array/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import {
  apg,
  apgMix,
  cfg,
  cfgZeroStar,
  composeConditions,
  frequencyDecoupled,
  type Guider,
  guide,
  magnitudeAware,
  pag,
  positive,
  type StepInfo,
  tangentialCfg,
} from './index.js';

const step = (index: number, more: Partial<StepInfo> = {}): StepInfo => ({ index, total: 10, timestep: 0, ...more });

/** A guider's steps on predictions by condition [1, C, ...], with what it carries. */
function running(guider: Guider, shape: readonly number[], given: Readonly<Record<string, readonly number[]>>) {
  let state: readonly NdArray[] = Array.from({ length: guider.slots }, () => zeros(shape));
  return async (info: StepInfo, extra: readonly string[] = []) => {
    const branches = guider.branches(info);
    const names = [...new Set([...branches.map((branch) => branch.name), ...extra])];
    const conditionOf = (name: string) => branches.find((branch) => branch.name === name)?.condition ?? name;
    const run = compile((inputs: Tensor, p: readonly Tensor[], slots: readonly Tensor[]) => {
      const { prediction, state } = guider.combine(new Map(p.map((x, i) => [names[i], x])), inputs, slots);
      return { prediction, state };
    });
    const predictions = names.map((name) => ndarray([...given[conditionOf(name)]], [...shape]));
    const result = await run(ndarray([...guider.inputs(info)]), predictions, state);
    state = result.state;
    return [...(result.prediction.data as Float32Array)].map((x) => Number(x.toFixed(4)));
  };
}
const once = (guider: Guider, given: Readonly<Record<string, readonly number[]>>, info = step(0)) =>
  running(guider, [1, given.positive.length], given)(info);

const given = { positive: [3, 4], negative: [1, 0] };

describe('apg', () => {
  it('drops what lies along the conditional prediction: (2, 4) less (2.64, 3.52)', async () => {
    expect(await once(apg(3, { momentum: 0 }), given)).toEqual([1.72, 4.96]);
    expect(await once(apg(3, { momentum: 0, eta: 1 }), given)).toEqual(await once(cfg(3), given));
    // As diffusers has it: ε(x, ∅) + s u.
    expect(await once(apg(3, { momentum: 0, base: 'unconditional' }), given)).toEqual([-0.92, 1.44]);
  });

  it('shortens updates to its limit', async () => {
    const [x, y] = await once(apg(2, { momentum: 0, eta: 1, normThreshold: 1 }), given);
    expect(Math.hypot(x - 3, y - 4)).toBeCloseTo(1, 3);
  });

  it('sums updates with momentum, and not where it is off', async () => {
    const run = running(apg(2, { eta: 1, momentum: -0.5, interval: [0, 0.5] }), [1, 2], given);
    expect(await run(step(0))).toEqual([5, 8]);
    expect(await run(step(1))).toEqual([4, 6]);
    // Off, though another guider asked for the negative prediction.
    expect(await run(step(5), ['negative'])).toEqual([3, 4]);
    expect(await run(step(2))).toEqual([4.5, 7]);
  });

  it('takes over from classifier-free guidance, the momentum gathered', async () => {
    const run = running(apgMix(3, 2, { eta: 1, cfgSteps: 2 }), [1, 2], given);
    expect(await run(step(0))).toEqual([7, 12]);
    expect(await run(step(1))).toEqual([7, 12]);
    expect(await run(step(2))).toEqual([4.5, 7]);
  });
});

describe('cfgZeroStar', () => {
  it('scales the unconditional prediction to fit, after a first step of zeros where the model is one of flow', async () => {
    // α = 3: away from (3, 0).
    expect(await once(cfgZeroStar(2), given, step(1))).toEqual([3, 8]);
    expect(await once(cfgZeroStar(2, { rescale: 0.5 }), given)).toEqual([0, 0]);
    expect(await once(cfgZeroStar(2), given, step(0, { predictionType: 'epsilon' }))).toEqual([3, 8]);
    expect(await once(cfgZeroStar(2, { zeroInitSteps: 2 }), given, step(1))).toEqual([0, 0]);
  });

  it('begins with zeros beside other guiders, too, whatever is rescaled', async () => {
    const both = guide(cfgZeroStar(2), cfg(2), { rescale: 1 });
    const only = guide(cfgZeroStar(2), pag(0), { rescale: 1 });
    expect((await once(both, given)).every(Number.isFinite)).toBe(true);
    expect(await once(only, given)).toEqual([0, 0]);
  });
});

it('tangentialCfg keeps the unconditional prediction along the first singular vector', async () => {
  // Parallel predictions are all along it; of (2, 0) and (0, 1) it is the first axis, so nothing is kept.
  expect(await once(tangentialCfg(3), { positive: [2, 4], negative: [1, 2] })).toEqual([4, 8]);
  expect(await once(tangentialCfg(3), { positive: [2, 0], negative: [0, 1] })).toEqual([6, 0]);
});

it('magnitudeAware fades where the predictions part', async () => {
  const parted = { positive: [3, 0], negative: [1, 0] };
  expect(await once(magnitudeAware(3, { alpha: 0 }), parted)).toEqual([7, 0]);
  expect(await once(magnitudeAware(3, { alpha: 0.5 }), parted)).toEqual([Number((3 + 4 * Math.exp(-1)).toFixed(4)), 0]);
});

describe('frequencyDecoupled', () => {
  const [n, size] = [24, [1, 1, 4, 6]];
  const image = (seed: number) => Array.from({ length: n }, (_, i) => Math.sin(seed * (i + 1)));
  const pictures = { positive: image(1), negative: image(2) };
  const guided = (guider: Guider, info = step(0)) => running(guider, size, pictures)(info);

  it('is classifier-free guidance when all scales are alike, for any size', async () => {
    expect(await guided(frequencyDecoupled([3, 3, 3]))).toEqual(await guided(cfg(3)));
  });

  it('leaves a level alone at scale 1 or outside its interval, and asks for nothing when all are', async () => {
    const fine = await guided(frequencyDecoupled([3, 1]));
    const timed = frequencyDecoupled([3, 5], {
      interval: [
        [0, 1],
        [0.5, 1],
      ],
    });
    expect(fine).not.toEqual(pictures.positive);
    expect(await guided(timed)).toEqual(fine);
    expect(frequencyDecoupled([1, 1]).branches(step(0))).toEqual([positive]);
    expect(await guided(frequencyDecoupled([1, 1]))).toEqual(pictures.positive.map((x) => Number(x.toFixed(4))));
  });

  it('refuses lists of another length', () => {
    expect(() => frequencyDecoupled([])).toThrow('expected a scale for each level');
    expect(() => frequencyDecoupled([3, 2], { rescale: [0.5] })).toThrow('1 values for 2 levels');
  });
});

describe('composeConditions', () => {
  const wanted = { positive: [1, 0], b: [0, 2], c: [0, 0], negative: [1, 1] };
  const guider = composeConditions(2, { positive: 1, b: 0.5, c: -1 }, { interval: [0, 0.5] });

  it('weighs each condition against the negative one', async () => {
    expect(guider.branches(step(0)).map(({ condition }) => condition)).toEqual(['positive', 'b', 'c', 'negative']);
    // (1, 1) + 2 ((0, -1) + 0.5 (-1, 1) - (-1, -1))
    expect(await once(guider, wanted)).toEqual([2, 2]);
    expect(await once(guider, wanted, step(5))).toEqual([1, 0]);
    expect(guider.branches(step(5))).toEqual([positive]);
  });

  it('refuses weights that make no sense', () => {
    expect(() => composeConditions(2, {})).toThrow('at least one weight');
    expect(() => composeConditions(2, { negative: 1 })).toThrow("'negative' is what the others are set against");
  });
});

it('guide keeps one inside another off where it should be', async () => {
  /** A guider that does not ask whether its branch is there. */
  const sign: Guider = {
    slots: 0,
    inputCount: 0,
    branches: () => [positive, { name: 'b', condition: 'b' }],
    inputs: () => [],
    combine: (p, _, state) => ({ prediction: p.get('positive')!.add(p.get('b')!.sign()), state }),
  };
  const given = { positive: [3, 4], negative: [1, 0], b: [7, 8] };
  const [inner, signs] = [cfg(3), sign].map((guider) => guide(guider, { interval: [0, 0.5] }));
  const both = guide(inner, signs, cfg(2));
  expect(await once(both, given)).toEqual([3 + 3 * 2 + 1, 4 + 3 * 4 + 1]);
  expect(await once(both, given, step(5))).toEqual([3 + 2, 4 + 4]);
});
