import { describe, expect, it, vi } from 'vitest';
import { type NdArray, ndarray, toFloat16, toHalf, zeros } from '../array/index.js';
import { Generator } from '../random/index.js';
import { compile, concat, constant, type Tensor, Variable, variable } from './index.js';

const numbers = (array: NdArray): number[] => Array.from(array.data, Number);
const vector = (...values: number[]) => ndarray(values);

describe('variables', () => {
  it('are read as they were before the call, and updated in place after it', async () => {
    const v = variable(vector(1, 2), { name: 'v' });
    const array = v.value;
    const f = compile((x: Tensor) => {
      v.assign(v.add(x));
      return { before: v, read: v.mul(10) };
    });
    const { before, read } = await f(vector(5, 5));
    expect(numbers(before)).toEqual([1, 2]);
    expect(numbers(read)).toEqual([10, 20]);
    expect(v.value).toBe(array);
    expect(numbers(array)).toEqual([6, 7]);
    await f(vector(1, 1));
    expect(numbers(array)).toEqual([7, 8]);
    expect(v.version).toBe(2);
    await f.release();
  });

  it('that trade places see each other’s old value', async () => {
    const [a, b, c, d] = [1, 2, 3, 4].map((x) => variable(vector(x, x)));
    const f = compile(() => {
      a.assign(b);
      b.assign(a);
      c.assign(d.mul(10));
      d.assign(c.add(0.5));
      return {};
    });
    await f();
    expect([a, b, c, d].map((v) => v.value.data[0])).toEqual([2, 1, 40, 3.5]);
    await f.release();
  });

  it('never share their array with one another or with a result', async () => {
    const [a, b] = [variable(vector(0, 0)), variable(vector(0, 0))];
    const f = compile((x: Tensor) => {
      const next = concat([x.sum().reshape([1]), x.mean().reshape([1])]);
      a.assign(next);
      b.assign(next);
      return next;
    });
    const result = await f(vector(1, 3));
    expect([result, a.value, b.value].map(numbers)).toEqual([
      [4, 2],
      [4, 2],
      [4, 2],
    ]);
    expect(new Set([result, a.value, b.value].map((array) => array.data.buffer)).size).toBe(3);
    await f.release();
  });

  it('give the same numbers from a host loop as from the graph', async () => {
    const rng = new Generator(0);
    const [p, m] = [variable(rng.randn([5, 3])), variable(zeros([5, 3]))];
    const step = (g: Tensor, rate: Tensor) => {
      const nextM = m.mul(0.9).add(g.mul(0.1));
      const nextP = p.sub(nextM.mul(rate).div(nextM.square().sqrt().add(1e-3))).maximum(-0.5);
      return { nextP, nextM };
    };
    const inGraph = compile(step);
    const onHost = compile((g: Tensor, rate: Tensor) => {
      const { nextP, nextM } = step(g, rate);
      p.assign(nextP);
      m.assign(nextM);
      return {};
    });
    for (let i = 0; i < 3; i++) {
      const args = [rng.randn([5, 3]), ndarray([0.1], [])] as const;
      const { nextP, nextM } = await inGraph(...args);
      await onHost(...args);
      for (const [v, expected] of [[p, nextP] as const, [m, nextM] as const])
        for (const [j, value] of numbers(v.value).entries()) expect(value).toBeCloseTo(Number(expected.data[j]), 6);
    }
    await Promise.all([inGraph.release(), onHost.release()]);
  });

  it('are frozen on demand, until they change', async () => {
    const v = variable(vector(1, 2));
    const trace = vi.fn((x: Tensor) => x.mul(v));
    const f = compile(trace, { freeze: true });
    const call = async () => numbers(await f(vector(10, 10)));
    expect(await call()).toEqual([10, 20]);
    (v.value.data as Float32Array)[0] = 3;
    expect(await call()).toEqual([10, 20]);
    v.changed();
    expect(await call()).toEqual([30, 20]);
    v.set(vector(4, 4));
    expect(await call()).toEqual([40, 40]);
    const update = compile(() => {
      v.assign(v.add(1));
      return {};
    });
    await update();
    expect(await call()).toEqual([50, 50]);
    expect(await call()).toEqual([50, 50]);
    expect(trace).toHaveBeenCalledTimes(4);
    await Promise.all([f.release(), update.release()]);
  });

  it('are not frozen where the function assigns them', async () => {
    const [v, w] = [variable(vector(1)), variable(vector(10))];
    const f = compile(
      () => {
        v.assign(v.add(w));
        return v;
      },
      { freeze: true },
    );
    expect([await f(), await f(), await f()].map(numbers)).toEqual([[1], [11], [21]]);
    await f.release();
  });

  it.each([{ freeze: false }, { freeze: true }])('may hold 16-bit floats to be cast, %o', async (options) => {
    const half = variable(ndarray(Uint16Array.of(toFloat16(1.5), toFloat16(-2)), [2], 'float16'));
    const f = compile((x: Tensor) => half.cast('float32').mul(x), options);
    expect(numbers(await f(vector(2, 3)))).toEqual([3, -6]);
    await f.release();
  });

  it('of bfloat16 must be frozen', async () => {
    const values = ndarray(Float32Array.from({ length: 1000 }, (_, i) => i % 7));
    const half = new Variable(toHalf(values, 'bfloat16'), false, 'half');
    const fn = (x: Tensor) => half.cast('float32').mul(x);
    const frozen = compile(fn, { freeze: true });
    expect(numbers(await frozen(vector(2)))).toEqual(numbers(values).map((x) => 2 * x));
    await frozen.release();
    const live = compile(fn);
    await expect(live(vector(2))).rejects.toThrow(
      'compile: onnxruntime takes bfloat16 as frozen weights only: use { freeze: true } and cast them, or convert with toFloat32',
    );
    await live.release();
  });

  it('refuse other shapes and dtypes, and assignments outside a trace', () => {
    const v = variable(vector(1, 2), { name: 'proj.bias' });
    expect(() => v.set(vector(1))).toThrow(new RangeError('proj.bias: holds [2], got [1]'));
    expect(() => v.set(ndarray([1, 2], [2], 'int64'))).toThrow(new TypeError('proj.bias: holds float32, got int64'));
    expect(() => v.assign(constant(1))).toThrow('proj.bias: holds [2] float32, assigned [] float32');
    expect(() => v.assign(v.add(1))).toThrow('assign: only inside a function that is being compiled');
  });
});
