import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, rand, sumOverParts, type Tensor, variable } from './index.js';

describe('sumOverParts', () => {
  const rng = new Generator(0);
  const w = variable(rng.randn([3, 3]));
  const loss = (x: Tensor, t: Tensor) =>
    x
      .matmul(w)
      .tanh()
      .mul(t.reshape([-1, 1]))
      .square()
      .sum();
  const [x, t] = [rng.randn([6, 3]), ndarray([1, 2, 3, 4, 5, 6])];

  it('adds up losses and gradients as the whole batch would', async () => {
    const whole = compile((x: Tensor, t: Tensor) => ({ loss: loss(x, t), g: gradients(loss(x, t), [w])[0] }));
    const parts = compile((x: Tensor, t: Tensor) => {
      const [l, g, gAgain] = sumOverParts(3, [x, t], ([x, t]) => {
        const [g] = gradients(loss(x, t), [w]);
        return [loss(x, t), g, g];
      });
      return { loss: l, g, gAgain };
    });
    const [a, b] = [await whole(x, t), await parts(x, t)];
    expect(b.loss.data[0]).toBeCloseTo(a.loss.data[0] as number, 3);
    for (const [i, g] of (a.g.data as Float32Array).entries()) {
      expect(b.g.data[i]).toBeCloseTo(g, 3);
      expect(b.gAgain.data[i]).toBe(b.g.data[i]);
    }
  });

  it('moves the elements of a sum after summing, and where they are read, before', async () => {
    const f = compile((x: Tensor) =>
      sumOverParts(3, [x], ([part]) => {
        const [moved, read] = [part.mul(2).transpose().reshape([6]), part.mul(3).transpose()];
        return [moved, read, read.exp().sum(), part.reshape([6])];
      }),
    );
    const g = compile((x: Tensor) => {
      const sum = (y: Tensor) => y.reshape([3, 2, 3]).sum(0);
      const exponentials = x.mul(3).exp().sum();
      return [sum(x.mul(2)).transpose().reshape([6]), sum(x.mul(3)).transpose(), exponentials, sum(x).reshape([6])];
    });
    const [got, expected] = [await f(x), await g(x)];
    for (const [i, { shape, data }] of expected.entries()) {
      expect(got[i].shape).toEqual(shape);
      for (const [k, value] of (data as Float32Array).entries()) expect(got[i].data[k]).toBeCloseTo(value, 4);
    }
  });

  it('reads what does not depend on the part from outside', async () => {
    const f = compile((x: Tensor) => sumOverParts(2, [x], ([part]) => [part.sum(), w.sum()]));
    const [sum, outside] = await f(x);
    expect(sum.data[0]).toBeCloseTo(
      [...x.data].reduce((a, b) => a + b),
      4,
    );
    expect(outside.data[0]).toBeCloseTo(2 * [...(w.value.data as Float32Array)].reduce((a, b) => a + b), 4);
  });

  it('takes the whole batch where a part would draw', async () => {
    const f = compile(
      (x: Tensor) => sumOverParts(2, [x], ([part]) => [part.mul(0).add(rand(part.shape, rng)).sum(0)])[0],
    );
    expect((await f(x)).shape).toEqual([3]);
  });

  it('names parts that do not divide the batch', async () => {
    await expect(compile((x: Tensor) => sumOverParts(4, [x], ([part]) => [part.sum()])[0])(x)).rejects.toThrow(
      'sumOverParts: 4 parts do not divide a batch of 6',
    );
  });
});
