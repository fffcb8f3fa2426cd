import { expect, test } from 'vitest';
import { Generator, normalWeights } from '../random/index.js';
import { compile, constant, gradients, type Tensor } from '../tensor/index.js';
import { linearScan, Mamba } from './index.js';

const draw = (seed: number, shape: readonly number[]) => normalWeights(new Generator(seed), shape);
const largest = (x: { data: ArrayLike<unknown> }) => Math.max(...Array.from(x.data, (v) => Math.abs(Number(v))));

/** One token after another. */
function plain(a: Tensor, b: Tensor): Tensor[] {
  const h = [b.slice(1, 0, 1)];
  for (let t = 1; t < b.shape[1]; t++)
    h.push(
      a
        .slice(1, t, t + 1)
        .mul(h[t - 1])
        .add(b.slice(1, t, t + 1)),
    );
  return h;
}

test.each([1, 8, 9, 75])('a scan of %i tokens is the recurrence, and so is its gradient', async (length) => {
  const weight = constant(draw(3, [2, length, 3]));
  const run = compile((x: Tensor, b: Tensor) => {
    const a = x.sigmoid();
    const h = linearScan(a, b);
    const expected = plain(a, b);
    const loss = expected.map((y, t) => y.mul(weight.slice(1, t, t + 1)).sum()).reduce((sum, term) => sum.add(term));
    const slopes = gradients(h.mul(weight).sum(), [x, b]);
    const expectedSlopes = gradients(loss, [x, b]);
    return [
      ...expected.map((y, t) => y.sub(h.slice(1, t, t + 1))),
      ...slopes.map((slope, i) => slope.sub(expectedSlopes[i])),
    ];
  });
  for (const difference of await run(draw(1, [2, length, 3]), draw(2, [2, length, 3])))
    expect(largest(difference)).toBeLessThan(1e-5);
  await run.release();
});

test('a bidirectional block with equal halves answers a reversed sequence in reverse', async () => {
  const block = new Mamba({ dModel: 4, dState: 3, bidirectional: true }, new Generator(0));
  const state = block.stateDict();
  for (const name of state.keys())
    if (name.startsWith('backward.')) state.set(name, state.get(name.slice('backward.'.length))!);
  block.loadStateDict(state);
  const run = compile((x: Tensor) => block.forward(x).sub(block.forward(x.flip(1)).flip(1)));
  expect(largest(await run(draw(1, [2, 11, 4])))).toBeLessThan(1e-6);
  await run.release();
});

test('decay and input of different shapes are refused', () => {
  const zeros = (shape: readonly number[]) => constant(0).expand(shape);
  expect(() => linearScan(zeros([1, 2]), zeros([1, 3]))).toThrow('decay [1,2] and input [1,3], expected one shape');
});
