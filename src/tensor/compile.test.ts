import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as ort from 'onnxruntime-node';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type NdArray, ndarray, zeros } from '../array/index.js';
import { Generator } from '../random/index.js';
import {
  arange,
  compile,
  concat,
  constant,
  evaluate,
  gradients,
  normalize,
  rand,
  randint,
  randn,
  split,
  type Tensor,
  variable,
  where,
} from './index.js';

const numbers = (array: NdArray): number[] => Array.from(array.data, Number);
const vector = (...values: number[]) => ndarray(values);

describe('compile', () => {
  it('splits into more parts than a small constant can list', async () => {
    const reversed = compile((x: Tensor) => concat(split(x, 300, 0).reverse(), 0));
    expect(numbers(await reversed(ndarray([...Array(300).keys()])))).toEqual([...Array(300).keys()].reverse());
    await reversed.release();
  });

  it('takes and gives lists and records of arrays', async () => {
    const f = compile((a: Tensor, rest: { b: Tensor; c: readonly Tensor[] }) => ({
      sum: [a, rest.b, ...rest.c].reduce((x, y) => x.add(y)),
      list: [rest.c[0], { again: rest.c[1] }] as const,
    }));
    const { sum, list } = await f(vector(1, 2), { b: vector(10, 20), c: [vector(3, 4), vector(5, 6)] });
    expect(numbers(sum)).toEqual([19, 32]);
    expect(numbers(list[0])).toEqual([3, 4]);
    expect(list[1].again).toEqual(vector(5, 6));
    await f.release();
  });

  it('traces once per shapes, dtypes and structure', async () => {
    const trace = vi.fn((xs: readonly Tensor[]) => xs.map((x) => x.add(x)));
    const f = compile(trace);
    expect((await f([vector(1, 2)])).map(numbers)).toEqual([[2, 4]]);
    expect((await f([vector(3, 4)])).map(numbers)).toEqual([[6, 8]]);
    expect(trace).toHaveBeenCalledTimes(1);
    expect((await f([vector(1)])).map(numbers)).toEqual([[2]]);
    expect((await f([ndarray([1], [1], 'int64')]))[0]).toEqual(ndarray([2], [1], 'int64'));
    expect((await f([vector(1, 2), vector(1, 2)])).length).toBe(2);
    expect(trace).toHaveBeenCalledTimes(4);
    await f([vector(5, 6)]);
    expect(trace).toHaveBeenCalledTimes(4);
    await f.release();
  });

  it('keeps nothing of the graph, however long the weights live', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const [v, moment] = [variable(vector(1, 2)), variable(vector(0, 0))];
    const nodes: WeakRef<Tensor>[] = [];
    const f = compile((x: Tensor) => {
      // Weights that are re-laid out after x are younger than x.
      const product = x.square().mul(v.mul(3));
      const y = product.mul(randn([2], new Generator(0)));
      moment.assign(moment.mul(0.5).add(y.mul(0.5)));
      nodes.push(new WeakRef(product), new WeakRef(y));
      return { y };
    });
    await f(vector(1, 2));
    const { y } = await f(vector(1, 2));
    expect(y.shape).toEqual([2]);
    await new Promise(setImmediate); // what was looked at by a WeakRef lives to the end of its turn
    collect();
    expect(nodes.map((node) => node.deref())).toEqual([undefined, undefined]);
    await f.release();
    expect(v.shape).toEqual([2]);
  });

  it('traces again after a failed trace', async () => {
    let fail = true;
    const f = compile((x: Tensor) => {
      if (fail) throw new Error('not yet');
      return x.mul(2);
    });
    await expect(f(vector(1))).rejects.toThrow('not yet');
    fail = false;
    expect(numbers(await f(vector(1)))).toEqual([2]);
    await f.release();
  });

  it('reads results that are inputs, constants and the same tensor twice', async () => {
    const f = compile((x: Tensor, unused: Tensor) => {
      const y = x.neg();
      return { x, y, same: y, one: constant(1), unused };
    });
    const out = await f(vector(1, 2), vector(7));
    expect(Object.values(out).map(numbers)).toEqual([[1, 2], [-1, -2], [-1, -2], [1], [7]]);
    expect(out.y).toEqual(out.same);
    await f.release();
  });

  it('handles int64, int32, bool and scalars', async () => {
    const f = compile((i: Tensor, j: Tensor, b: Tensor, s: Tensor) => ({
      i: i.mul(2),
      j: j.add(j),
      b: b.not(),
      picked: where(b, i.cast('float32'), s),
      range: arange(3),
    }));
    const big = 2n ** 40n;
    const out = await f(
      ndarray(BigInt64Array.of(big, -1n), [2], 'int64'),
      ndarray([1, 2], [2], 'int32'),
      ndarray([1, 0], [2], 'bool'),
      ndarray([0.5], []),
    );
    expect(out.i).toEqual(ndarray(BigInt64Array.of(2n * big, -2n), [2], 'int64'));
    expect(out.j).toEqual(ndarray([2, 4], [2], 'int32'));
    expect(out.b).toEqual(ndarray([0, 1], [2], 'bool'));
    expect(numbers(out.picked)).toEqual([2 ** 40, 0.5]);
    expect(numbers(out.range)).toEqual([0, 1, 2]);
    await f.release();
  });

  it('takes turns, also between functions that share a variable', async () => {
    const v = variable(vector(0));
    const increment = compile(() => {
      v.assign(v.add(1));
      return v;
    });
    const double = compile(() => {
      v.assign(v.mul(2));
      return v;
    });
    const calls = [increment(), double(), increment(), double(), increment(), v.read()];
    expect((await Promise.all(calls)).map((array) => array.data[0])).toEqual([0, 1, 2, 3, 6, 7]);
    await Promise.all([increment.release(), double.release()]);
  });

  it('goes on after a call that failed', async () => {
    const f = compile((x: Tensor) => x.add(vectorOf2));
    const vectorOf2 = constant([1, 2]);
    const [bad, good] = await Promise.allSettled([f(vector(1, 2, 3)), f(vector(1, 2))]);
    expect(bad.status).toBe('rejected');
    expect(good).toMatchObject({ value: vector(2, 4) });
    await f.release();
  });
});

describe('random draws', () => {
  it('are taken anew at each call, in the order written', async () => {
    const rng = new Generator(3);
    const f = compile(() => {
      const [normal, uniform, integers] = [randn([20], rng), rand([4], rng), randint(0, 100, [3], rng)];
      return { integers: integers.add(0), uniform: uniform.add(0), normal: normal.add(0) };
    });
    const again = new Generator(3);
    for (let i = 0; i < 2; i++) {
      const { normal, uniform, integers } = await f();
      expect(normal).toEqual(again.randn([20]));
      expect(uniform).toEqual(again.rand([4]));
      expect(integers).toEqual(again.randint(0, 100, [3]));
    }
    await f.release();
  });
});

describe('evaluate', () => {
  it('computes a tensor, a list or a record', async () => {
    const x = constant([1, 2, 3]);
    expect(numbers(await evaluate(x.cumsum(0)))).toEqual([1, 3, 6]);
    expect((await evaluate(split(x, 3))).map(numbers)).toEqual([[1], [2], [3]]);
    const { sum, max } = await evaluate({ sum: x.sum(), max: x.max() });
    expect([sum, max].map((array) => array.data[0])).toEqual([6, 3]);
  });

  it('reads variables as they are', async () => {
    const v = variable(vector(3));
    expect(numbers(await evaluate(gradients(v.square().sum(), [v])[0]))).toEqual([6]);
  });
});

describe('errors', () => {
  const reject = async (fn: (...xs: Tensor[]) => unknown, args: readonly unknown[], error: Error) => {
    const f = compile(fn as (...xs: Tensor[]) => Tensor);
    await expect(f(...(args as NdArray[]))).rejects.toThrow(error);
    await f.release();
  };
  const identity = (x: Tensor) => x;

  it('name what is no array', async () => {
    const wanted = 'expected an NdArray, or lists or records of them';
    await reject(identity, [3], new TypeError(`compile: an argument is a number, ${wanted}`));
    await reject(identity, [undefined], new TypeError(`compile: an argument is undefined, ${wanted}`));
    await reject(identity, [Float32Array.of(1)], new TypeError(`compile: an argument is a Float32Array, ${wanted}`));
    const result = 'expected a tensor, or lists or records of them';
    await reject(async () => constant(1), [], new TypeError(`compile: the result is a Promise, ${result}`));
    await reject(() => vector(1).data, [], new TypeError(`compile: the result is a Float32Array, ${result}`));
  });

  it('name shapes and dtypes that do not fit', async () => {
    await reject(
      (x, y) => x.add(y),
      [vector(1, 2), vector(1, 2, 3)],
      new RangeError('add: shapes [2] and [3] do not broadcast'),
    );
    await reject(
      (x, y) => x.mul(y),
      [vector(1), ndarray([1], [1], 'int64')],
      new TypeError('mul: takes two tensors of one dtype, got float32 and int64'),
    );
    await reject(
      (x, y) => x.matmul(y),
      [zeros([2, 3]), zeros([2, 3])],
      new RangeError('matmul: inner dimensions differ: [2,3] @ [2,3]'),
    );
  });

  it('name the use of another function’s input', async () => {
    let stolen: Tensor | undefined;
    const f = compile((x: Tensor) => {
      stolen ??= x;
      return stolen.add(1);
    });
    await f(vector(1, 2));
    await expect(f(vector(1))).rejects.toThrow("compile: a tensor [2] from another function's inputs is used");
    await f.release();
  });

  it('refuse calls after release; releasing twice is the same as once', async () => {
    const f = compile(function half(x: Tensor) {
      return x.mul(0.5);
    });
    const under = f(vector(2));
    await Promise.all([f.release(), f.release()]);
    expect(numbers(await under)).toEqual([1]);
    await expect(f(vector(2))).rejects.toThrow(new Error('compile: half was called after its release'));
    await f.release();
  });
});

describe('engine options', () => {
  afterEach(() => vi.restoreAllMocks());

  it('reach the session', async () => {
    const create = vi.spyOn(ort.InferenceSession, 'create');
    const options = () => create.mock.lastCall?.[1] as ort.InferenceSession.SessionOptions;
    await evaluate(constant([1]).add(1), { threads: 1, spinning: false });
    expect(options()).toMatchObject({
      executionProviders: ['cpu'],
      intraOpNumThreads: 1,
      graphOptimizationLevel: 'all',
      extra: { session: { intra_op: { allow_spinning: '0' } } },
    });
    await evaluate(constant([1]).add(1));
    expect(options()).not.toHaveProperty('intraOpNumThreads');
    expect(options()).toMatchObject({ extra: { session: { intra_op: { allow_spinning: '1' } } } });
  });

  it('run a function that updates variables unoptimised, as written', async () => {
    const create = vi.spyOn(ort.InferenceSession, 'create');
    const v = variable(vector(1));
    const f = compile(() => {
      v.assign(v.add(1));
      return v.mul(2);
    });
    await f();
    expect(create.mock.lastCall?.[1]).toMatchObject({ graphOptimizationLevel: 'disabled' });
    await f.release();
  });

  it('keep onnxruntime from joining a sum with the layer norm behind it, which takes four times as long', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'noisewright-'));
    const { create } = ort.InferenceSession;
    const optimized = async (fused: boolean) => {
      const path = join(folder, `${fused}.onnx`);
      vi.spyOn(ort.InferenceSession, 'create').mockImplementation((model: unknown, options: unknown) => {
        const { extra, ...others } = options as ort.InferenceSession.SessionOptions;
        const changed = { ...others, ...(!fused && { extra }), optimizedModelFilePath: path };
        return create.call(ort.InferenceSession, model as Uint8Array, changed);
      });
      const f = compile((x: Tensor, y: Tensor) => normalize(x.add(y), 1));
      const x = new Generator(0).randn([2, 4, 16]);
      await f(x, x);
      await f.release();
      vi.restoreAllMocks();
      return readFile(path, 'latin1');
    };
    try {
      expect(await optimized(true)).toContain('SkipLayerNormalization'); // what is switched off still has that name
      expect(await optimized(false)).not.toContain('SkipLayerNormalization');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('say what to install for CUDA', async () => {
    const reason = new Error('OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library');
    vi.spyOn(ort.InferenceSession, 'create').mockRejectedValue(reason);
    await expect(evaluate(constant([1]).add(1), { device: 'cuda' })).rejects.toThrow(
      "device cuda: onnxruntime's CUDA libraries are not there. On Linux x64 with CUDA 12 and cuDNN 9, install them with: ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node",
    );
  });
});
