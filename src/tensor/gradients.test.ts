import { describe, expect, it } from 'vitest';
import { type NdArray, ndarray, type Shape } from '../array/index.js';
import {
  avgPool2d,
  checkpoint,
  compile,
  concat,
  constant,
  conv2d,
  convTranspose2d,
  gather,
  gatherElements,
  gelu,
  gradients,
  groupNorm,
  linear,
  logSoftmax,
  matmul,
  maxPool2d,
  mish,
  normalize,
  pad,
  quickGelu,
  relu,
  resizeNearest,
  scaledDotProductAttention,
  silu,
  softmax,
  softplus,
  sort,
  split,
  stack,
  stopGradient,
  sumOfSquares,
  type Tensor,
  variance,
  where,
} from './index.js';

/** Deterministic values in [-1, 1], no two alike. */
const values = (shape: Shape, seed = 1): NdArray<'float32'> => {
  let state = seed * 7919 + 17;
  const data = new Float32Array(shape.reduce((n, d) => n * d, 1));
  for (let i = 0; i < data.length; i++) {
    state = (state * 48271) % 2147483647;
    data[i] = (state / 2147483647) * 2 - 1;
  }
  return ndarray(data, shape);
};

/** Compares the gradient of a weighted sum of f's output with central differences, for every input. */
async function check(f: (...xs: Tensor[]) => Tensor, inputs: NdArray<'float32'>[], tolerance = 3e-3): Promise<void> {
  const loss = (...xs: Tensor[]) => {
    const y = f(...xs);
    return y.mul(constant(values(y.shape, 99))).sum();
  };
  const run = compile((...xs: Tensor[]) => ({ loss: loss(...xs), grads: gradients(loss(...xs), xs) }));
  const { grads } = await run(...inputs);
  const h = 1e-2;
  for (const [k, x] of inputs.entries()) {
    const exact = grads[k].data as Float32Array;
    const indices = x.data.length <= 12 ? [...x.data.keys()] : [0, 1, 5, x.data.length >> 1, x.data.length - 1];
    for (const i of indices) {
      const at = async (d: number) => {
        const moved = ndarray(x.data.slice(), x.shape);
        moved.data[i] += d;
        return (await run(...inputs.map((v, j) => (j === k ? moved : v)))).loss.data[0] as number;
      };
      const numeric = ((await at(h)) - (await at(-h))) / (2 * h);
      expect(Math.abs(exact[i] - numeric), `input ${k}, element ${i}: ${exact[i]} against ${numeric}`).toBeLessThan(
        tolerance * Math.max(1, Math.abs(numeric)),
      );
    }
  }
  await run.release();
}

const a = values([2, 3]);
const b = values([2, 3], 2);
const positive = (x: NdArray<'float32'>) =>
  ndarray(
    x.data.map((v) => Math.abs(v) + 0.5),
    x.shape,
  );
const image = values([2, 4, 6, 6], 3);

const cases: Record<string, [(...xs: Tensor[]) => Tensor, NdArray<'float32'>[], number?]> = {
  add: [(x, y) => x.add(y), [a, values([3], 4)]],
  sub: [(x, y) => x.sub(y), [values([3], 4), a]],
  mul: [(x, y) => x.mul(y), [a, values([2, 1], 4)]],
  div: [(x, y) => x.div(y), [a, positive(b)]],
  pow: [(x, y) => x.pow(y), [positive(a), b]],
  maximum: [(x, y) => x.maximum(y), [a, b]],
  minimum: [(x, y) => x.minimum(y), [a, b]],
  clamp: [(x) => x.clamp(-0.5, 0.5), [a]],
  neg: [(x) => x.neg(), [a]],
  exp: [(x) => x.exp(), [a]],
  log: [(x) => x.log(), [positive(a)]],
  sqrt: [(x) => x.sqrt(), [positive(a)]],
  rsqrt: [(x) => x.rsqrt(), [positive(a)]],
  square: [(x) => x.square(), [a]],
  reciprocal: [(x) => x.reciprocal(), [positive(a)]],
  abs: [(x) => x.abs(), [a]],
  sin: [(x) => x.sin(), [a]],
  cos: [(x) => x.cos(), [a]],
  tanh: [(x) => x.tanh(), [a]],
  sigmoid: [(x) => x.sigmoid(), [a]],
  erf: [(x) => x.erf(), [a]],
  softplus: [softplus, [a]],
  'gelu (erf)': [(x) => gelu(x.mul(3)), [a]],
  'gelu (tanh)': [(x) => gelu(x.mul(3), 'tanh'), [a]],
  silu: [(x) => silu(x.mul(3)), [a]],
  quickGelu: [(x) => quickGelu(x.mul(3)), [a]],
  relu: [relu, [a]],
  mish: [mish, [a]],
  where: [(x, y) => where(x.greater(0), x.mul(2), y), [a, b]],
  cast: [(x) => x.cast('float64').cast('float32'), [a]],
  sum: [(x) => x.sum(1), [a]],
  mean: [(x) => x.mean(0, true), [a]],
  max: [(x) => x.max(1), [a]],
  min: [(x) => x.min(0), [a]],
  prod: [(x) => x.prod(1), [positive(a)]],
  sumOfSquares: [(x) => sumOfSquares(x, 1), [a]],
  cumsum: [(x) => x.cumsum(1), [a]],
  variance: [(x) => variance(x, 1, true, true), [a]],
  reshape: [(x) => x.reshape([3, -1]).square(), [a]],
  transpose: [(x) => x.transpose().square(), [a]],
  expand: [(x) => x.unsqueeze(0).expand([4, 2, 3]).square(), [a]],
  slice: [(x) => x.slice(2, 1, 6, 2).square(), [image]],
  flip: [(x) => x.flip(1).mul(x), [a]],
  pad: [
    (x) =>
      pad(
        x,
        [
          [1, 0],
          [0, 2],
        ],
        3,
      ).square(),
    [a],
  ],
  concat: [(x, y) => concat([x, y, x], 1).square(), [a, b]],
  stack: [(x, y) => stack([x, y], 1).square(), [a, b]],
  split: [(x) => split(x, [1, 2], 1).reduce((y, part) => y.add(part.square().sum(1)), constant(0)), [a]],
  gather: [(x) => gather(x, constant([1, 0, 1, 1], 'int64'), 0).square(), [a]],
  gatherElements: [(x) => gatherElements(x, constant(ndarray([0, 2, 1, 1], [2, 2], 'int64')), 1).square(), [a]],
  sort: [(x) => sort(x, 1, true).values.square(), [a]],
  matmul: [(x, y) => x.matmul(y), [values([2, 3, 4]), values([4, 5], 2)]],
  'matmul, both transposed': [
    (x, y) => matmul(x, y, { transA: true, transB: true, alpha: 0.5 }),
    [values([2, 4, 3]), values([2, 5, 4], 2)],
  ],
  linear: [(x, w, c) => linear(x, w, c), [values([2, 3, 4]), values([5, 4], 2), values([5], 3)]],
  softmax: [(x) => softmax(x.mul(2)), [a]],
  logSoftmax: [(x) => logSoftmax(x.mul(2), 0), [a]],
  normalize: [(x) => normalize(x, 1, 1e-5), [values([2, 8])]],
  'normalize of one row': [(x) => normalize(x, 1, 1e-5), [values([3, 1, 8])]],
  'normalize, scaled for every sample': [
    (x, scale, shift) => normalize(x, 1, 1e-5).mul(scale).add(shift),
    [values([2, 3, 8]), values([2, 1, 8], 2), values([2, 1, 8], 3)],
  ],
  'normalize, scaled for every row': [
    (x, scale) => normalize(x, 1, 1e-5).mul(scale),
    [values([2, 3, 8]), values([2, 3, 1], 2)],
  ],
  groupNorm: [(x, w, c) => groupNorm(x, 2, w, c, 1e-5), [values([2, 4, 2, 3]), values([4], 2), values([4], 3)]],
  'groupNorm without positions': [
    (x, w, c) => groupNorm(x, 2, w, c, 1e-5),
    [values([3, 4]), values([4], 2), values([4], 3)],
  ],
  'normalize over two axes': [(x) => normalize(x, 2, 1e-5), [values([2, 3, 4])]],
  'attention, one query for all': [
    (q, k, v) => scaledDotProductAttention(q, k, v),
    [values([1, 3, 4]), values([1, 5, 4], 2), values([2, 5, 3], 3)],
  ],
  attention: [
    (q, k, v) => scaledDotProductAttention(q, k, v),
    [values([2, 3, 4]), values([2, 5, 4], 2), values([2, 5, 6], 3)],
  ],
  conv2d: [(x, w, c) => conv2d(x, w, c, { padding: 1 }), [image, values([3, 4, 3, 3], 4), values([3], 5)]],
  'conv2d, channels in blocks': [
    (x, w, c) => conv2d(x.mul(0.1), w, c, { padding: 1 }),
    [values([2, 16, 4, 4]), values([32, 16, 3, 3], 4), values([32], 5)],
  ],
  'conv2d, channels in blocks, stride 2': [
    (x, w) => conv2d(x.mul(0.1), w, undefined, { stride: 2, padding: 1 }),
    [values([8, 16, 8, 8]), values([16, 16, 3, 3], 4)],
  ],
  'conv2d, stride 2': [(x, w) => conv2d(x, w, undefined, { stride: 2, padding: 1 }), [image, values([3, 4, 3, 3], 4)]],
  'conv2d, asymmetric padding': [
    (x, w) =>
      conv2d(x, w, undefined, {
        stride: 2,
        padding: [
          [0, 1],
          [0, 1],
        ],
      }),
    [image, values([3, 4, 3, 3], 4)],
  ],
  'conv2d, groups and dilation': [
    (x, w) => conv2d(x, w, undefined, { groups: 2, dilation: 2, padding: 2 }),
    [image, values([6, 2, 3, 3], 4)],
  ],
  'conv2d, many channels to one': [
    (x, w) => conv2d(x, w, undefined, { padding: [[1, 0], [0, 2]], dilation: [1, 2] }), // biome-ignore format: one line
    [values([2, 4, 4, 6]), values([1, 4, 2, 3], 4)],
  ],
  'conv2d, padding wider than the kernel reaches': [
    (x, w) => conv2d(x, w, undefined, { padding: 1 }),
    [image, values([3, 4, 1, 1], 4)],
  ],
  'conv2d of doubled pixels': [
    (x, w, c) => conv2d(resizeNearest(x, [8, 8]), w, c, { padding: 1 }),
    [image, values([3, 4, 3, 3], 4), values([3], 5)],
  ],
  'conv2d of doubled pixels, channels in blocks': [
    (x, w, c) => conv2d(resizeNearest(x.mul(0.1), [6, 10]), w, c, { padding: 1 }),
    [values([4, 16, 3, 5]), values([32, 16, 3, 3], 4), values([32], 5)],
  ],
  convTranspose2d: [
    (x, w) => convTranspose2d(x, w, { stride: 2, padding: 1, outputPadding: 1 }),
    [image, values([4, 3, 3, 3], 4)],
  ],
  avgPool2d: [(x) => avgPool2d(x).square(), [image]],
  // Far apart, so that a step of the difference changes no winner.
  maxPool2d: [
    (x) => maxPool2d(x.mul(0.1), 3, 2, 1).square(),
    [
      ndarray(
        image.data.map((v) => v * 50),
        image.shape,
      ),
    ],
  ],
  resizeNearest: [(x) => resizeNearest(x, [12, 12]).square(), [image]],
  'resizeNearest to an odd size': [(x) => resizeNearest(x, [11, 7]).square(), [image]],
  checkpoint: [(x, y) => checkpoint(() => x.mul(y).tanh().mul(x)).square(), [a, b]],
  'checkpoint without kept results': [
    (x, y) => checkpoint(() => gelu(x.mul(y)), { discardResults: true }).square(),
    [a, b],
  ],
};

describe('gradients agree with central differences', () => {
  for (const [name, [f, inputs, tolerance]] of Object.entries(cases)) {
    it(name, () => check(f, inputs, tolerance));
    // d/dx of (the gradient's own weighted sum): every rule is written in primitives that have rules.
    if (!['maximum', 'minimum', 'max', 'min', 'relu', 'clamp', 'abs'].includes(name))
      it(`${name}, twice`, () =>
        check(
          (...xs) => {
            const y = f(...xs);
            const loss = y
              .mul(constant(values(y.shape, 7)))
              .square()
              .sum();
            return concat(gradients(loss, xs).map((g) => g.reshape([-1])));
          },
          inputs,
          2e-2,
        ));
  }
});

describe('gradients', () => {
  it('stop where told to', async () => {
    const f = compile((x: Tensor) => gradients(stopGradient(x.square()).mul(x).sum(), [x])[0]);
    expect([...(await f(ndarray([3], [1]))).data]).toEqual([9]);
  });
  it('are zero for what the loss does not read', async () => {
    const f = compile((x: Tensor, y: Tensor) => gradients(x.sum(), [y])[0]);
    expect([...(await f(a, ndarray([1, 2]))).data]).toEqual([0, 0]);
  });
  it('name the operation that has none', () => {
    const x = constant(a);
    expect(() => gradients(x.mod(2).sum(), [x])).toThrow('fmod has no gradient');
    expect(() => gradients(x, [x])).toThrow('the loss must be a scalar, got [2,3]');
  });
});
