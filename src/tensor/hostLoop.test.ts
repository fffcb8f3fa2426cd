import { expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, gradients, type Tensor, variable } from './index.js';

const rng = new Generator(0);

it('AdamW and an average of the weights agree with the same formula in the graph', async () => {
  const size = 20_003; // several chunks, and not a multiple of a vector
  const [p, m, v, average] = [0, 1, 2, 3].map(() => variable(rng.randn([size])));
  v.set(ndarray((v.value.data as Float32Array).map(Math.abs), [size]));
  const step = (target: readonly Tensor[], scale: Tensor, stepSize: Tensor) => {
    const [p, m, v, average] = target;
    const [g] = gradients(p.square().mul(p).sum(), [p]);
    const clipped = g.mul(scale.minimum(1));
    const nextM = m.mul(0.9).add(clipped.mul(0.1));
    const nextV = v.mul(0.999).add(clipped.square().mul(0.001));
    const next = p.mul(0.99).sub(nextM.mul(stepSize).div(nextV.sqrt().add(1e-8)));
    return [next, nextM, nextV, average.sub(average.sub(next).mul(0.1))];
  };
  const onHost = compile((scale: Tensor, stepSize: Tensor) => {
    for (const [i, next] of step([p, m, v, average], scale, stepSize).entries()) [p, m, v, average][i].assign(next);
    return { stepSize };
  });
  const inGraph = compile((scale: Tensor, stepSize: Tensor) => step([p, m, v, average], scale, stepSize));
  const numbers = [ndarray([0.7], []), ndarray([0.01], [])] as const;
  for (let i = 0; i < 3; i++) {
    const expected = await inGraph(...numbers);
    await onHost(...numbers);
    for (const [k, { data }] of [p, m, v, average].map((x) => x.value).entries())
      for (const [at, value] of (expected[k].data as Float32Array).entries())
        if (!(Math.abs((data[at] as number) - value) <= 1e-6 * Math.max(1e-3, Math.abs(value))))
          expect(data[at], `variable ${k}, element ${at}`).toBe(value);
  }
});

it('variables that trade places read before either is written', async () => {
  const [a, b] = [variable(ndarray([1, 2])), variable(ndarray([3, 4]))];
  await compile(() => {
    a.assign(b.neg());
    b.assign(a.mul(2));
    return {};
  })();
  expect([[...a.value.data], [...b.value.data]]).toEqual([
    [-3, -4],
    [2, 4],
  ]);
});

it('what WebAssembly has no instruction for runs as JavaScript', async () => {
  const x = variable(ndarray([0, 1]));
  await compile(() => {
    x.assign(x.exp().add(1));
    return {};
  })();
  expect(x.value.data[1]).toBeCloseTo(Math.E + 1, 6);
});

it('an update that reads a row or a column of the variable leaves that part to the graph', async () => {
  const p = variable(ndarray([1, 2, 3, 4, 5, 6], [2, 3]));
  const run = compile((column: Tensor, row: Tensor) => {
    p.assign(p.mul(column.mul(2)).add(row));
    return { column };
  });
  await run(ndarray([10, 100], [2, 1]), ndarray([1, 2, 3]));
  expect([...p.value.data]).toEqual([21, 42, 63, 801, 1002, 1203]);
  await run.release();
});
