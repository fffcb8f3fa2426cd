import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray, zeros } from '../array/index.js';
import { Generator } from '../random/index.js';
import { deviceProblem } from '../runtime/index.js';
import {
  avgPool2d,
  type CompileOptions,
  compile,
  conv2d,
  gelu,
  gradients,
  matmul,
  maxPool2d,
  normalize,
  scaledDotProductAttention,
  silu,
  sumOverParts,
  type Tensor,
  variable,
} from './index.js';

const problem = await deviceProblem('webgpu');
const rng = new Generator(0);
const numbers = (array: NdArray): number[] => Array.from(array.data, Number);

/** The largest difference between the devices, relative to the largest value. */
async function difference(fn: (...xs: Tensor[]) => readonly Tensor[], inputs: readonly NdArray[]): Promise<number> {
  const run = async (options: CompileOptions) => {
    const f = compile(fn, options);
    const results = await f(...inputs);
    await f.release();
    return results as readonly NdArray[];
  };
  const [host, gpu] = [await run({}), await run({ device: 'webgpu' })];
  return Math.max(
    ...host.map((array, k) => {
      const scale = Math.max(...numbers(array).map(Math.abs), 1e-12);
      return Math.max(...numbers(array).map((value, i) => Math.abs(value - Number(gpu[k].data[i])))) / scale;
    }),
  );
}

const image = rng.randn([2, 6, 7, 7]);
const angles = ndarray(Float32Array.from({ length: 400 }, (_, i) => (i - 200) * 5.3));
const matrices = [rng.randn([2, 5, 4]), rng.randn([2, 3, 5])];
const cases: Record<string, [(...xs: Tensor[]) => readonly Tensor[], NdArray[]]> = {
  'products that transpose and scale': [
    (a, b) => [
      matmul(a, b, { transA: true, transB: true, alpha: 0.3 }),
      ...gradients(matmul(b, a).square().sum(), [a, b]),
    ],
    matrices,
  ],
  attention: [(q) => [scaledDotProductAttention(q, q, q.mul(0.5))], [rng.randn([1, 2, 5, 8])]],
  'convolutions from 6 channels to 4, and their gradients': [
    (x, w, b) => {
      const y = conv2d(x, w, b, { padding: 1 });
      return [y, ...gradients(avgPool2d(silu(y), 7).square().sum(), [x, w, b])];
    },
    [image, rng.randn([4, 6, 3, 3]), rng.randn([4])],
  ],
  'sine and cosine far from zero': [(x) => [x.sin(), x.cos()], [angles]],
  'logarithm of softmax': [(x) => [x.mul(60).logSoftmax(-1)], [rng.randn([3, 7])]],
  'norm, GELU and their gradients': [
    (x) => gradients(gelu(normalize(x), 'tanh').square().sum(), [x]),
    [rng.randn([4, 12])],
  ],
  'maxima and their gradients': [
    (x) => gradients(maxPool2d(x, 3, 2, 1).square().sum().add(maxPool2d(x).sum()), [x]),
    [rng.randn([2, 3, 6, 6])],
  ],
  'logic and signs': [
    (x) => [x.greater(0.5).or(x.less(-0.5)).cast('float32'), x.sign(), x.mul(0).sign()],
    [rng.randn([20])],
  ],
  loops: [
    (x) => sumOverParts(2, [x], ([part]) => [matmul(part, part, { transA: true, alpha: 2 })]),
    [rng.randn([4, 3, 2])],
  ],
};

describe.skipIf(problem)(`on WebGPU${problem ? `, skipped: ${problem}` : ''}`, { timeout: 120_000 }, () => {
  for (const [name, [fn, inputs]] of Object.entries(cases))
    it(`${name} agree with the CPU`, async () => expect(await difference(fn, inputs)).toBeLessThan(2e-6));

  it('variables stay on the GPU, and functions for the CPU share them', async () => {
    const v = variable(ndarray([1, 2]), { name: 'v' });
    const count = variable(ndarray([5], [1], 'int64'));
    const update = () => {
      v.assign(v.add(1));
      count.assign(count.add(1));
      return v.mul(10);
    };
    const [gpu, cpu] = [compile(update, { device: 'webgpu' }), compile(update)];
    expect(numbers(await gpu())).toEqual([10, 20]);
    expect(numbers(await gpu())).toEqual([20, 30]);
    expect(() => v.value).toThrow('v [2]: its value is on the GPU; call await read() first');
    expect(await v.read()).toEqual(ndarray([3, 4]));
    expect(v.value).toBe(await v.read());
    expect(numbers(await cpu())).toEqual([30, 40]);
    expect(numbers(v.value)).toEqual([4, 5]);
    expect(numbers(await gpu())).toEqual([40, 50]);
    v.set(ndarray([7, 7]));
    expect(numbers(await gpu())).toEqual([70, 70]);
    await Promise.all([gpu.release(), cpu.release()]);
    expect([v.value, count.value].map(numbers)).toEqual([[8, 8], [10]]);
  });

  it('calls that are not waited for take turns', async () => {
    const v = variable(ndarray([0]));
    const next = () => {
      v.assign(v.add(1));
      return v;
    };
    const [gpu, cpu] = [compile(next, { device: 'webgpu' }), compile(next)];
    const first = (array: NdArray) => array.data[0];
    const calls = [gpu(), cpu(), gpu(), gpu(), v.read(), cpu(), gpu()].map((call) => call.then(first));
    expect(await Promise.all(calls)).toEqual([0, 1, 2, 3, 4, 4, 5]);
    await Promise.all([gpu.release(), cpu.release()]);
  });

  it('a kernel that is on the GPU can be frozen for the CPU', async () => {
    const w = variable(ndarray(new Float32Array(16 * 16 * 9).fill(1), [16, 16, 3, 3]));
    const gpu = compile(
      () => {
        w.assign(w.mul(2));
        return w.sum();
      },
      { device: 'webgpu' },
    );
    await gpu();
    const cpu = compile((x: Tensor) => conv2d(x, w), { freeze: true });
    const x = ndarray(new Float32Array(16 * 9).fill(1), [1, 16, 3, 3]);
    expect(numbers(await cpu(x))).toEqual(Array(16).fill(288));
    await Promise.all([gpu.release(), cpu.release()]);
  });

  it('two variables assigned one tensor, and the result, are apart', async () => {
    const [a, b] = [variable(ndarray([1, 2])), variable(ndarray([3, 4]))];
    const f = compile(
      (x: Tensor) => {
        const next = a.add(x);
        a.assign(next);
        b.assign(next);
        return next;
      },
      { device: 'webgpu' },
    );
    expect(numbers(await f(ndarray([1, 1])))).toEqual([2, 3]);
    a.set(ndarray([0, 0]));
    expect(numbers(await b.read())).toEqual([2, 3]);
    expect(numbers(await f(ndarray([5, 5])))).toEqual([5, 5]);
    expect(numbers(await b.read())).toEqual([5, 5]);
    await f.release();
  });

  it('frozen functions notice what a training left on the GPU', async () => {
    const v = variable(ndarray([2]));
    const use = compile((x: Tensor) => x.mul(v), { device: 'webgpu', freeze: true });
    const train = compile(
      () => {
        v.assign(v.add(1));
        return {};
      },
      { device: 'webgpu' },
    );
    expect(numbers(await use(ndarray([10])))).toEqual([20]);
    await train();
    expect(numbers(await use(ndarray([10])))).toEqual([30]);
    await Promise.all([use.release(), train.release()]);
  });

  it('buffers that are replaced are freed', async () => {
    const v = variable(zeros([2 ** 22])); // 16 MB
    const f = compile(
      () => {
        v.assign(v.add(1));
        return { first: v.slice(0, 0, 1) };
      },
      { device: 'webgpu' },
    );
    for (let i = 0; i < 5; i++) await f();
    const before = process.memoryUsage().rss;
    for (let i = 5; i < 30; i++) expect(numbers((await f()).first)).toEqual([i]);
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6); // of the 400 MB that were written
    await f.release();
  });
});
