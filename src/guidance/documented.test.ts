import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type NdArray, ndarray, zeros } from '../array/index.js';
import { DiT } from '../models/index.js';
import { identityAttention, withPerturbations } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { compile, constant, flops, type Tensor } from '../tensor/index.js';
import {
  type Branch,
  contrast,
  type GuidanceOptions,
  type Guider,
  guide,
  inputAt,
  perturbable,
  positive,
} from './index.js';

// docs/guidance.md prints what lies between these marks.
// begin
/** Classifier-free guidance that moves by the sign of the difference alone. */
const signed = (scale: number, options: GuidanceOptions = {}): Guider =>
  contrast(scale, options, {
    formula: ({ conditional, other, weight }) => conditional.add(weight.mul(conditional.sub(other).sign())),
  });
// end

// begin
const blind: Branch = {
  name: 'blind',
  condition: 'positive',
  perturb: (model) => {
    const layers = perturbable(model, 'attention').flatMap((place) => [...place.values()]);
    return new Map(layers.map((layer) => [layer, { attend: identityAttention }]));
  },
};

/** Away from the model without attention, less and less; half of the last update comes along. */
const sighted = (scale: number): Guider => ({
  slots: 1,
  inputCount: 1,
  branches: () => [positive, blind],
  inputs: ({ index, total }) => [scale * (1 - index / total)],
  combine(predictions, inputs, [last]) {
    const conditional = predictions.get('positive')!;
    const update = conditional.sub(predictions.get('blind')!).add(last.mul(0.5));
    return { prediction: conditional.add(inputAt(inputs, 0).mul(update)), state: [update] };
  },
});
// end

test('the documentation prints these guiders', () => {
  const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');
  const parts = read('./documented.test.ts').split('// begin\n').slice(1);
  const page = read('../../docs/guidance.md');
  expect(parts.length).toBe(2);
  for (const part of parts) expect(page).toContain(part.split('// end\n')[0]);
});

/** One step of a guider on predictions [1, 2] in the order of its branches. */
async function stepped(guider: Guider, index: number, given: readonly number[][], state: readonly NdArray[] = []) {
  const step = { index, total: 4, timestep: 0 };
  const names = guider.branches(step).map((branch) => branch.name);
  const run = compile((inputs: Tensor, p: readonly Tensor[], slots: readonly Tensor[]) => {
    const { prediction, state } = guider.combine(new Map(p.map((x, i) => [names[i], x])), inputs, slots);
    return { prediction, state };
  });
  const predictions = given.map((values) => ndarray(values, [1, 2]));
  const result = await run(ndarray([...guider.inputs(step)]), predictions, state);
  return { values: [...result.prediction.data], state: result.state };
}

test('signed moves by a sign', async () => {
  const given = [
    [3, 4],
    [5, 0],
  ];
  expect((await stepped(signed(3), 0, given)).values).toEqual([1, 6]);
  expect((await stepped(signed(3, { convention: 'paper' }), 0, given)).values).toEqual([0, 7]);
  expect(signed(1).branches({ index: 0, total: 1, timestep: 0 })).toEqual([positive]);
});

test('sighted fades and remembers, alone and beside others', async () => {
  const given = [
    [3, 4],
    [1, 4],
  ];
  const first = await stepped(sighted(2), 0, given, [zeros([1, 2])]);
  expect(first.values).toEqual([7, 4]);
  expect((await stepped(sighted(2), 2, given, first.state)).values).toEqual([6, 4]);
  const both = guide(sighted(2), signed(2));
  expect((await stepped(both, 0, [...given, [0, 0]], [zeros([1, 2])])).values).toEqual([8, 5]);
});

test('blind turns attention off everywhere', () => {
  const rng = new Generator(0);
  const model = new DiT({ numAttentionHeads: 2, attentionHeadDim: 4, numLayers: 2, sampleSize: 4, inChannels: 1 }, rng);
  const [x, t, labels] = [constant(rng.randn([1, 1, 4, 4])), constant([1]), constant([0], 'int64')];
  const plain = model.forward(x, t, labels);
  const without = withPerturbations(blind.perturb!(model, [4, 4]), () => model.forward(x, t, labels));
  expect(flops([without])).toBeLessThan(flops([plain]));
});
