import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { compile, gradients, type Tensor, variable } from '../tensor/index.js';
import { adamW, clipGradients, sgd } from './optimizer.js';

/** Runs n steps on loss = sum(p^3) / 3, whose gradient is p^2. */
async function run(
  make: (p: ReturnType<typeof variable>) => ReturnType<typeof sgd>,
  steps: number,
  learningRate: number,
) {
  const p = variable(ndarray([1, -2]));
  const optimizer = make(p);
  const step = compile((hyper: readonly Tensor[]) => {
    const [g] = gradients(p.square().mul(p).sum().div(3), [p]);
    optimizer.update([g], hyper);
    return { g };
  });
  for (let i = 1; i <= steps; i++) await step(optimizer.hyperparameters(i, learningRate).map((x) => ndarray([x], [])));
  return [...(p.value.data as Float32Array)];
}

describe('optimizers', () => {
  it('adamW follows the formula', async () => {
    const expected = [1, -2].map((x) => {
      let [p, m, v] = [x, 0, 0];
      for (let t = 1; t <= 3; t++) {
        const g = p * p;
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        p = p * (1 - 0.1 * 0.5) - (0.1 * (m / (1 - 0.9 ** t))) / (Math.sqrt(v / (1 - 0.99 ** t)) + 1e-8);
      }
      return p;
    });
    const got = await run((p) => adamW(new Map([['p', p]]), { betas: [0.9, 0.99], weightDecay: 0.5 }), 3, 0.1);
    for (const [i, x] of got.entries()) expect(x).toBeCloseTo(expected[i], 5);
  });
  it('sgd with Nesterov momentum and decay follows the formula', async () => {
    const expected = [1, -2].map((x) => {
      let [p, velocity] = [x, 0];
      for (let t = 0; t < 2; t++) {
        const g = p * p + 0.1 * p;
        velocity = t === 0 ? g : 0.9 * velocity + g;
        p -= 0.01 * (g + 0.9 * velocity);
      }
      return p;
    });
    const got = await run(
      (p) => sgd(new Map([['p', p]]), { momentum: 0.9, nesterov: true, weightDecay: 0.1 }),
      2,
      0.01,
    );
    for (const [i, x] of got.entries()) expect(x).toBeCloseTo(expected[i], 5);
  });
  it('clips by the joint norm', async () => {
    const f = compile((a: Tensor, b: Tensor) => {
      const { clipped, norm } = clipGradients([a, b], 1);
      return { norm, a: clipped[0], b: clipped[1] };
    });
    const { norm, a, b } = await f(ndarray([3]), ndarray([0, 4]));
    expect(norm.data[0]).toBeCloseTo(5, 5);
    expect([a.data[0], b.data[1]].map((x) => Number(x).toFixed(5))).toEqual(['0.60000', '0.80000']);
  });
});
