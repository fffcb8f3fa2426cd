import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { compile, concat, type Tensor } from '../tensor/index.js';
import { cfg, classifierGuidance, gradientOf, guide, guidePrediction, type NoisyClassifier } from './index.js';

/** Two classes; the logit of the second is `slope` times the sum of the pixels. */
const linear = (slope: number): NoisyClassifier => ({
  numClasses: 2,
  imageShape: [1, 1, 2],
  forward: (x) => concat([x.sum([1, 2, 3]).mul(0).unsqueeze(1), x.sum([1, 2, 3]).mul(slope).unsqueeze(1)], 1),
});
const step = (index: number, predictionPerScore?: number) => ({ index, total: 10, timestep: 0, predictionPerScore });
const values = (x: { data: unknown }) => [...(x.data as Float32Array)].map((v) => Math.round(v * 1e5) / 1e5);
const x = ndarray([0.25, 0.5], [1, 1, 1, 2]);
/** Of log p(second class) for `linear(2)` at x. */
const slope = 2 * (1 - 1 / (1 + Math.exp(-1.5)));

/** A guider's answer where the denoiser says 1 with its label and 0 without. */
async function guided(guider: ReturnType<typeof classifierGuidance>, label: number, info = step(0, -0.5)) {
  const branches = guider.branches(info);
  const run = compile((image: Tensor, labels: Tensor, inputs: Tensor) => {
    const said = (condition: string) => image.mul(0).add(condition === 'positive' ? 1 : 0);
    const predictions = branches.map(
      (b) => [b.name, b.predict?.(image, labels.cast('float32'), { labels }) ?? said(b.condition)] as const,
    );
    const { prediction, gradient } = guidePrediction(guider, new Map(predictions), inputs, [], 1);
    return gradient ? { prediction, gradient } : { prediction, gradient: prediction.mul(0) };
  });
  return run(x, ndarray([label], [1], 'int64'), ndarray([...guider.inputs(info)]));
}

describe('classifierGuidance', () => {
  it('adds the gradient of log p(y|x) to the score, in terms of the prediction', async () => {
    const { prediction } = await guided(classifierGuidance(linear(2), 3), 1);
    const expected = Math.round((1 - 0.5 * 3 * slope) * 1e5) / 1e5;
    expect(values(prediction)).toEqual([expected, expected]);
  });

  it("or leaves it to the sampler's mean", async () => {
    const { prediction, gradient } = await guided(classifierGuidance(linear(2), 3, { form: 'mean' }), 1);
    expect(values(prediction)).toEqual([1, 1]);
    expect(values(gradient)[0]).toBeCloseTo(3 * slope, 4);
  });

  it('guides the unconditional prediction on request, and nothing towards no class', async () => {
    const { prediction } = await guided(classifierGuidance(linear(2), 3, { unconditional: true }), 1);
    expect(values(prediction)[0]).toBeCloseTo(-0.5 * 3 * slope, 4);
    expect(values((await guided(classifierGuidance(linear(2), 3), 2)).prediction)).toEqual([1, 1]);
  });

  it('adds up with other guiders, and two classifiers with each other', async () => {
    const [a, b] = [linear(2), linear(-2)];
    expect(values((await guided(guide(cfg(3), classifierGuidance(a, 3)), 1)).prediction)[0]).toBeCloseTo(
      3 - 1.5 * slope,
      4,
    );
    const both = guide(classifierGuidance(a, 3), classifierGuidance(b, 1), classifierGuidance(a, 1));
    expect(both.branches(step(0, 1))).toHaveLength(3);
    const other = -2 * (1 - 1 / (1 + Math.exp(1.5)));
    expect(values((await guided(both, 1)).prediction)[0]).toBeCloseTo(1 - 0.5 * (4 * slope + other), 4);
    const mean = guide(classifierGuidance(a, 3, { form: 'mean' }), classifierGuidance(b, 1, { form: 'mean' }));
    expect(values((await guided(mean, 1)).gradient)[0]).toBeCloseTo(3 * slope + other, 4);
  });

  it('asks for nothing where it is off', () => {
    const guider = classifierGuidance(linear(2), ({ index }) => (index === 3 ? 0 : 1), { interval: [0.2, 0.5] });
    expect([0, 2, 3, 4, 5].map((i) => guider.branches(step(i)).length)).toEqual([1, 2, 1, 2, 1]);
    expect(() => guider.inputs(step(2))).toThrow('needs a step of a sampler');
  });

  it('refuses images of another shape, and classes that disagree', async () => {
    const run = compile((image: Tensor, labels: Tensor) => gradientOf(linear(1), image, labels, labels));
    await expect(run(ndarray([1, 2, 3], [1, 1, 1, 3]), ndarray([0], [1], 'int64'))).rejects.toThrow(
      "the classifier is for images [1,1,2], the denoiser's are [1,1,3]",
    );
    const three = { ...linear(1), numClasses: 3 };
    expect(() => guide(classifierGuidance(linear(1), 1), classifierGuidance(three, 1))).toThrow('2 and 3 classes');
  });
});
