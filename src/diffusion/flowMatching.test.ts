import { describe, expect, it } from 'vitest';
import { ndarray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, constant, evaluate, type Tensor } from '../tensor/index.js';
import {
  bridgePath,
  condOtPath,
  convertOnPath,
  cosinePath,
  linearVpPath,
  onPath,
  polynomialPath,
  vpPath,
} from './affinePath.js';
import { onFlow, schrodingerBridgeFlow, straightFlow, targetFlow, trigonometricFlow } from './conditionalFlow.js';
import { assignment, drawCoupling, exactCoupling, sinkhornPlan } from './optimalTransport.js';

const rng = new Generator(0);
const paths = {
  condOtPath: condOtPath(),
  polynomialPath: polynomialPath(3),
  vpPath: vpPath(),
  linearVpPath: linearVpPath(),
  cosinePath: cosinePath(),
  bridgePath: bridgePath(0.5),
};
const numbers = ({ data }: { data: ArrayLike<number | bigint> }) => Array.from(data, Number);

describe.each(Object.entries(paths))('%s', (_, path) => {
  it('goes at the velocity it says, and knows its time by its signal-to-noise ratio', async () => {
    const [x0, x1] = [rng.randn([5]), rng.randn([5])];
    const at = compile((x0: Tensor, x1: Tensor, t: Tensor) => onPath(path, x0, x1, t));
    const t = ndarray([0.1, 0.3, 0.5, 0.7, 0.9]);
    const h = 1e-3;
    const [before, after] = await Promise.all(
      [-h, h].map(async (d) => numbers((await at(x0, x1, ndarray(numbers(t).map((x) => x + d)))).x)),
    );
    for (const [i, v] of numbers((await at(x0, x1, t)).velocity).entries())
      expect((after[i] - before[i]) / (2 * h)).toBeCloseTo(v, 2);
    const times = await compile((t: Tensor) => path.snrInverse(path.at(t).alpha.div(path.at(t).sigma)))(t);
    for (const [i, s] of numbers(times).entries()) expect(s).toBeCloseTo(numbers(t)[i], 4);
  });

  it('turns predictions into one another and back', async () => {
    const kinds = ['target', 'epsilon', 'velocity'] as const;
    const [v, x, t] = [constant(rng.randn([4])), constant(rng.randn([4])), constant([0.2, 0.4, 0.6, 0.8])];
    for (const from of kinds)
      for (const to of kinds) {
        const there = convertOnPath(path, [from, to], v, x, t);
        const back = numbers(await evaluate(convertOnPath(path, [to, from], there, x, t)));
        for (const [i, y] of numbers(await evaluate(v.add(0))).entries()) expect(back[i]).toBeCloseTo(y, 3);
      }
  });
});

describe('conditional flows', () => {
  const [x0, x1, noise] = [rng.randn([3, 2]), rng.randn([3, 2]), rng.randn([3, 2])].map((x) => constant(x));
  it.each([straightFlow(0.1), schrodingerBridgeFlow(0.5), trigonometricFlow(0)])(
    'begin and end where they should',
    async (flow) => {
      for (const [t, end] of [
        [0, x0],
        [1, x1],
      ] as const) {
        const mean = numbers(await evaluate(flow.mean(x0, x1, constant([t]))));
        for (const [i, value] of numbers(await evaluate(end.add(0))).entries()) expect(mean[i]).toBeCloseTo(value, 5);
      }
    },
  );
  it('go along the derivative of x_t', async () => {
    const flow = targetFlow(0.05);
    const at = (t: number) => onFlow(flow, x0, x1, constant([t]), noise);
    const [a, b, v] = await evaluate([at(0.499).x, at(0.501).x, at(0.5).velocity]);
    for (const [i, value] of numbers(v).entries())
      expect((numbers(b)[i] - numbers(a)[i]) / 0.002).toBeCloseTo(value, 2);
  });
  it('refuse a negative width', () => {
    expect(() => straightFlow(-1)).toThrow('sigma -1, expected 0 or more');
    expect(() => polynomialPath(0)).toThrow('n 0, expected more than 0');
  });
});

describe('optimal transport', () => {
  it('finds the cheapest of all assignments', () => {
    const cost = Array.from({ length: 5 }, () => numbers(rng.rand([5])));
    const all = (rest: number[]): number[][] =>
      rest.length === 0 ? [[]] : rest.flatMap((j) => all(rest.filter((k) => k !== j)).map((tail) => [j, ...tail]));
    const price = (columns: ArrayLike<number>) => Array.from(columns).reduce((sum, j, i) => sum + cost[i][j], 0);
    const best = Math.min(...all([0, 1, 2, 3, 4]).map(price));
    expect(price(assignment(cost))).toBeCloseTo(best, 12);
  });
  it('pairs samples with their nearest when those are all different', () => {
    const x = rng.randn([6, 3]);
    const order = [3, 1, 5, 0, 4, 2];
    const moved = ndarray(Float32Array.from(order.flatMap((i) => [...x.data.slice(3 * i, 3 * i + 3)])), [6, 3]);
    expect([...exactCoupling(moved, x)]).toEqual(order);
  });
  it('regularised, keeps both sums, and draws pairs by it', () => {
    const cost = [
      [0, 1, 4],
      [1, 0, 1],
      [4, 1, 0],
    ];
    const plan = sinkhornPlan(cost, 0.1);
    for (let i = 0; i < 3; i++) {
      expect(plan[i].reduce((a, b) => a + b)).toBeCloseTo(1 / 3, 9);
      expect(plan.reduce((sum, row) => sum + row[i], 0)).toBeCloseTo(1 / 3, 9);
    }
    expect([...drawCoupling(plan, new Generator(1))]).toEqual([0, 1, 2]);
  });
});
