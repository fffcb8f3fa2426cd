import { expect, test } from 'vitest';
import { Generator, normalWeights } from '../random/index.js';
import { compile, constant, evaluate, gradients, type Tensor } from '../tensor/index.js';
import {
  type HippoMeasure,
  hippo,
  nplr,
  rankCorrection,
  respond,
  S4D,
  S4DiagonalKernel,
  S4DKernel,
  S4LowRankKernel,
} from './index.js';

const draw = (seed: number, shape: readonly number[]) => normalWeights(new Generator(seed), shape);
const largest = (x: { data: ArrayLike<unknown> }) => Math.max(...Array.from(x.data, (v) => Math.abs(Number(v))));

const kernels = {
  s4d: new S4DKernel({ dModel: 3, dState: 8 }, new Generator(0)),
  s4: new S4LowRankKernel({ dModel: 3, dState: 8, init: 'fout', dtMin: 0.01 }, new Generator(0)),
};
const systemOf = (name: keyof typeof kernels) => (name === 's4d' ? kernels.s4d.system() : kernels.s4.systems()[0]);

test.each(['s4d', 's4'] as const)(
  'the answer of %s is the convolution with its kernel, in chunks of any size',
  async (name) => {
    const length = 37;
    const run = compile((u: Tensor) => {
      const kernel = kernels[name].forward(length).reshape([3, length]);
      const terms = Array.from({ length }, (_, t) =>
        u
          .slice(2, 0, t + 1)
          .mul(kernel.slice(1, 0, t + 1).flip(1))
          .sum(2, true),
      );
      return [8, 16, 64].flatMap((chunk) => {
        const y = respond(systemOf(name), u, chunk);
        return terms.map((term, t) => term.sub(y.slice(2, t, t + 1)));
      });
    });
    for (const difference of await run(draw(1, [2, 3, length]))) expect(largest(difference)).toBeLessThan(2e-5);
    await run.release();
  },
);

test.each<HippoMeasure>(['legs', 'legt', 'fout'])('the %s matrix is V (W - P P*) V* with its conjugate', (measure) => {
  const n = 10;
  const { a } = hippo(measure, n);
  const rows = rankCorrection(measure, n, 2);
  const { w, v } = nplr(measure, n, { rank: 2 });
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      let sum = -rows.reduce((total, row) => total + row[i] * row[j], 0);
      // 2 Re(w v_i conj(v_j))
      for (const [k, { re, im }] of v.entries()) {
        const real = re[i] * re[j] + im[i] * im[j];
        const imaginary = im[i] * re[j] - re[i] * im[j];
        sum += 2 * (w.re[k] * real - w.im[k] * imaginary);
      }
      expect(sum).toBeCloseTo(a[i * n + j], 9);
    }
});

test.each(['zoh', 'bilinear', 'dss'] as const)('a %s kernel has finite slopes in all its parameters', async (disc) => {
  const kernel = new S4DiagonalKernel({ dModel: 4, dState: 8, channels: 2, nSsm: 2, disc }, new Generator(0));
  const response = kernel.forward(12);
  expect(response.shape).toEqual([2, 4, 12]);
  const weight = constant(draw(5, [2, 4, 12]));
  for (const slope of await evaluate(gradients(response.mul(weight).sum(), kernel.parameters()))) {
    expect(largest(slope)).toBeGreaterThan(0);
    expect(largest(slope)).toBeLessThan(1e4);
  }
});

test('a bidirectional layer reads both ways, a causal one does not', async () => {
  const options = { dModel: 4, dState: 8, transposed: false } as const;
  const touched = async (bidirectional: boolean) => {
    const layer = new S4D({ ...options, bidirectional }, new Generator(0));
    const run = compile((x: Tensor) =>
      layer
        .forward(x)
        .slice(1, 0, 5)
        .sub(layer.forward(x.slice(1, 0, 5))),
    );
    const difference = largest(await run(draw(1, [1, 9, 4])));
    await run.release();
    return difference;
  };
  expect(await touched(false)).toBeLessThan(1e-5);
  expect(await touched(true)).toBeGreaterThan(1e-3);
});

test('what has no state space is refused', () => {
  expect(() => hippo('fout', 5)).toThrow("hippo: 5 states of 'fout', expected an even number");
  expect(() => rankCorrection('legt', 4, 1)).toThrow("'legt' needs a correction of rank 2, got 1");
  expect(() => new S4DKernel({ dModel: 2, dState: 5 }, new Generator(0))).toThrow('S4D: 5 states, expected pairs');
  expect(() => new S4LowRankKernel({ dModel: 4, dState: 8, nSsm: 3 }, new Generator(0))).toThrow(
    '3 systems do not divide 4',
  );
});
