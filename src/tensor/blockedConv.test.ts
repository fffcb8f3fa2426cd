import { expect, it } from 'vitest';
import type { NdArray } from '../array/index.js';
import { Generator } from '../random/index.js';
import { convBlock, Session, toDeviceValue, toHost } from '../runtime/index.js';
import { emitGraph, reachable } from './graph.js';
import {
  avgPool2d,
  type ConvOptions,
  compile,
  concat,
  conv2d,
  convTranspose2d,
  gelu,
  gradients,
  groupNorm,
  linear,
  matmul,
  normalize,
  resizeNearest,
  silu,
  split,
  sumOverParts,
  type Tensor,
  toOnnx,
  variable,
} from './index.js';
import { withBlockedLayout } from './ops/blockedLayout.js';
import { input } from './ops/leaves.js';

const rng = new Generator(0);

it.each<[string, number[], number[], ConvOptions]>([
  ['a block of the batch', [16, 32, 7, 7], [16, 32, 3, 3], { padding: 1 }],
  ['a small batch', [2, 16, 9, 8], [32, 16, 3, 3], { padding: 1 }],
  ['a batch that shares no factor', [3, 16, 16, 5], [16, 16, 3, 3], { padding: 1 }],
  ['more than a cache holds', [16, 16, 40, 40], [16, 16, 3, 3], { padding: 1 }],
  ['fewer channels behind it', [16, 48, 7, 9], [16, 48, 3, 3], { padding: 1 }],
  ['one channel behind it', [4, 16, 8, 8], [1, 16, 3, 3], { padding: 1 }],
  [
    'fewer channels behind it, asymmetric padding and dilated rows',
    [8, 32, 12, 12],
    [16, 32, 3, 2],
    { padding: [[3, 1], [0, 1]], dilation: [2, 1] }, // biome-ignore format: reads better in one line
  ],
  ['stride 2', [8, 16, 14, 14], [32, 16, 3, 3], { padding: 1, stride: 2 }],
  ['stride 2 with a rest', [4, 16, 10, 9], [16, 16, 2, 2], { stride: 2 }],
  [
    'asymmetric padding and dilation',
    [8, 16, 12, 12],
    [16, 16, 3, 3],
    { padding: [[0, 2], [1, 0]], dilation: [1, 2] }, // biome-ignore format: reads better in one line
  ],
  ['dilated rows and stride', [8, 16, 15, 12], [16, 16, 3, 3], { padding: 2, dilation: [2, 1], stride: [2, 1] }],
  ['a kernel of one pixel', [2, 16, 4, 4], [32, 16, 1, 1], {}],
  ['groups', [2, 32, 6, 6], [32, 16, 3, 3], { groups: 2, padding: 1 }],
  ['few channels', [2, 3, 6, 6], [16, 3, 3, 3], { padding: 1 }],
])('blocked convolutions give what plain ones do: %s', async (_, xShape, wShape, options) => {
  const inputs = [rng.randn(xShape), rng.randn(wShape), rng.randn([wShape[0]])];
  await expectSame((...xs) => [conv2d(xs[0], xs[1], xs[2], options)], inputs);
});

it.each<[string, number[], ConvOptions, boolean]>([
  ['one', [1, 96, 3, 3], { padding: 1 }, true],
  ['three', [3, 96, 3, 3], { padding: [[2, 0], [1, 3]], dilation: [1, 2] }, true], // biome-ignore format: reads better in one line
  ['many', [12, 96, 3, 3], { padding: 1 }, false],
  ['one for every second pixel', [1, 96, 3, 3], { stride: 2 }, false],
])('convolutions to few channels give in blocks what they give plain: %s', async (_, shape, options, inBlocks) => {
  const f = (x: Tensor, w: Tensor, few: Tensor, bias: Tensor) => [
    conv2d(silu(conv2d(x, w.mul(0.1), undefined, { padding: 1 })), few.mul(0.03), bias, options),
  ];
  const inputs = [[2, 16, 6, 7], [96, 16, 3, 3], shape, [shape[0]]].map((shape) => rng.randn(shape));
  const [x, w, few, bias] = inputs.map((array) => variable(array));
  const plain = reachable(withBlockedLayout(f(x, w, few, bias), 16)).filter(({ op }) => op.name === 'conv2d');
  expect(plain).toHaveLength(inBlocks ? 0 : 1);
  await expectSame(f, inputs);
});

it.each<[string, number[], number[], { stride: number; padding?: number; outputPadding?: number }, boolean]>([
  ['3x3', [2, 16, 5, 4], [16, 32, 3, 3], { stride: 2, padding: 1, outputPadding: 1 }, true],
  ['4x4', [2, 32, 5, 4], [32, 16, 4, 4], { stride: 2, padding: 1 }, true],
  ['2x2', [1, 16, 3, 4], [16, 16, 2, 2], { stride: 2 }, true],
  ['not doubled', [1, 16, 3, 4], [16, 16, 3, 3], { stride: 2, padding: 1 }, false],
  ['steps of three', [1, 16, 3, 4], [16, 16, 3, 3], { stride: 3 }, false],
  ['channels that fill no block', [1, 16, 3, 4], [16, 8, 4, 4], { stride: 2, padding: 1 }, false],
])('blocked transposed convolutions give what plain ones do: %s', async (_, xShape, wShape, options, inBlocks) => {
  const f = (x: Tensor, w: Tensor) => convTranspose2d(x, w, options);
  const inputs = [rng.randn(xShape), rng.randn(wShape)];
  const names = reachable(withBlockedLayout([f(variable(inputs[0]), variable(inputs[1]))], 16)).map(
    ({ op }) => op.name,
  );
  expect(names.filter((name) => name === 'blockedConv')).toHaveLength(inBlocks ? 4 : 0);
  await expectSame((x, w) => [f(x, w)], inputs);
});

const same = (x: Tensor, w: Tensor) => conv2d(x, w, undefined, { padding: 1 });
it.each<[string, (x: Tensor, w: Tensor, c: Tensor) => Tensor]>([
  ['activations and sums', (x, w) => silu(same(x, w)).add(x).mul(0.5).sub(same(x, w).square())],
  [
    'a value for every channel',
    (x, w, c) =>
      same(x, w)
        .mul(c.reshape([16, 1, 1]))
        .add(c.reshape([1, 16, 1, 1])),
  ],
  ['minus a value', (x, w, c) => same(x, w).sub(c.reshape([16, 1, 1]))],
  ['a value minus', (x, w, c) => c.reshape([16, 1, 1]).sub(same(x, w))],
  ['a value for every channel and sample', (x, w) => same(x, w).add(x.mean([2, 3], true))],
  ['a value for every position', (x, w) => same(x, w).mul(x.sum(1, true))],
  ['group norm', (x, w, c) => silu(groupNorm(same(x, w).add(3), 4, c, c))],
  ['group norm after an offset', (x, w, c) => groupNorm(same(x, w).add(x.mean([2, 3], true)), 4, c, c)],
  ['group norm of many groups', (x, w, c) => groupNorm(same(x, w), 16, c, c).mul(x)],
  ['joined channels', (x, w) => concat([same(x, w), x], 1).slice(1, 8, 24)],
  ['whole blocks of channels', (x, w) => split(concat([same(x, w), x], 1), 2, 1)[0]],
  ['doubled and halved images', (x, w) => avgPool2d(same(resizeNearest(same(x, w), [12, 10]), w))],
  [
    'a doubled image between others',
    (x, w, c) => silu(conv2d(resizeNearest(same(x, w), [12, 10]), w, c, { padding: 1 })),
  ],
  [
    'kernels of one pixel in steps',
    (x, w) => conv2d(same(x, w), w.slice(2, 0, 1).slice(3, 0, 1), undefined, { stride: 2 }),
  ],
  ['kernels of one pixel', (x, w) => conv2d(same(x, w), w.slice(2, 0, 1).slice(3, 0, 1))],
  ['few channels before and after', (x, w) => same(same(x.slice(1, 0, 1), w.slice(1, 0, 1)), w.slice(0, 0, 1))],
  [
    'sums over positions',
    (x, w) =>
      same(x, w)
        .sum([2, 3])
        .add(same(x, w).sum([0, 2, 3])),
  ],
])('what follows blocked convolutions gives the same in their layout: %s', async (_, f) => {
  const inputs = [rng.randn([3, 16, 6, 5]), rng.randn([16, 16, 3, 3]), rng.randn([16])];
  await expectSame((x, w, c) => [f(x, w.mul(0.1), c)], inputs);
});

it('tokens of an image and of a product are added in blocks', async () => {
  const inputs = [rng.randn([2, 64, 10, 8]), rng.randn([64, 64, 3, 3]), rng.randn([64, 64])];
  await expectSame((x, w, v) => {
    const tokens = same(x, w.mul(0.05)).reshape([2, 64, 80]).transpose([0, 2, 1]);
    const mixed = linear(normalize(tokens), v.mul(0.1)).add(tokens);
    return [mixed.transpose([0, 2, 1]).reshape([2, 64, 10, 8]).mul(x)];
  }, inputs);
});

it.each<[string, number, ConvOptions]>([
  ['16 samples', 16, {}],
  ['20 samples, which fill no blocks', 20, {}],
  ['32 samples', 32, {}],
  ['steps that end beyond the image', 16, { stride: 2, padding: 1 }],
])('kernels of one pixel between others have the same gradients in blocks: %s', async (_, n, options) => {
  const inputs = [rng.randn([n, 16, 3, 3]), rng.randn([16, 16, 3, 3]), rng.randn([16, 16, 1, 1])];
  await expectSame(
    (x, w, v) => [same(conv2d(same(x, w.mul(0.1)), v.mul(0.3), undefined, options), w.mul(0.1))],
    inputs,
  );
});

it.each<[string, (x: Tensor, w: Tensor, b: Tensor, v: Tensor) => Tensor]>([
  ['a linear layer', (x, w, b) => linear(x, w, b)],
  ['without a bias', (x, w) => linear(x, w)],
  ['a feed-forward network', (x, w, b, v) => linear(gelu(linear(x, w, b), 'tanh'), v)],
  ['the exact GELU', (x, w, b, v) => linear(gelu(linear(x, w, b)), v)],
  ['layers that follow each other', (x, w, b, v) => linear(linear(x, w, b), v)],
  [
    'three layers of one input',
    (x, w, b) =>
      silu(linear(x, w, b))
        .add(linear(x, w))
        .mul(linear(x.mul(2), w)),
  ],
  ['a residual connection', (x, w, b, v) => linear(silu(linear(x, w, b)), v).add(x)],
  ['a value for every column', (x, w, b) => linear(x, w).mul(b)],
  ['heads', (x, w, b) => linear(x, w, b).reshape([2, 80, 4, 32]).transpose([0, 2, 1, 3]).tanh()],
  ['a product with the transposed weight', (x, w) => matmul(x.reshape([160, 64]), w.transpose())],
  ['rows that do not fill blocks', (x, w, b, v) => linear(silu(linear(x.slice(1, 0, 74), w, b)), v)],
  ['a prime number of rows', (x, w, b, v) => linear(silu(linear(x.reshape([160, 64]).slice(0, 0, 151), w, b)), v)],
  ['few rows', (x, w, b) => linear(x.slice(1, 0, 16), w, b)],
])('products of many rows give in blocks what they give plain: %s', async (_, f) => {
  const shapes = [[2, 80, 64], [128, 64], [128], [64, 128]];
  const inputs = shapes.map((shape) => rng.randn(shape));
  await expectSame((x, w, b, v) => [f(x, w.mul(0.1), b, v.mul(0.1))], inputs);
});

const throughHeads = (size: number) => (x: Tensor, w: Tensor, b: Tensor, v: Tensor) => {
  const heads = linear(x, w.mul(0.1), b)
    .reshape([2, 80, 128 / size, size])
    .transpose([0, 2, 1, 3]);
  return linear(heads.tanh().transpose([0, 2, 1, 3]).reshape([2, 80, 128]), v.mul(0.1));
};
it.each([4, 8, 16, 32])('heads of %i numbers are brought into blocks and out of them', async (size) => {
  const inputs = [[2, 80, 64], [128, 64], [128], [64, 128]].map((shape) => rng.randn(shape));
  await expectSame((x, w, b, v) => [throughHeads(size)(x, w, b, v)], inputs);
});

it.each([8, 16, 32])('heads of %i numbers are moved once each way', (size) => {
  const [x, w, b, v] = [[2, 80, 64], [128, 64], [128], [128, 128]].map((shape) => variable(rng.randn(shape)));
  const y = throughHeads(size)(x, w, b, v);
  const rewritten = reachable(withBlockedLayout([y, ...gradients(y.tanh().sum(), [x, w, b, v])], 16));
  // Out of blocks and into them, forward and backward; and y and its gradient to rows.
  const wholeMoves = rewritten.filter(({ op, inputs }) => op.name === 'transpose' && inputs[0].size === 2 * 80 * 128);
  expect(wholeMoves).toHaveLength(6);
  expect(rewritten.filter(({ op }) => op.name === 'blockedRows')).toHaveLength(2);
});

it('takes a sum and a product with one factor for each row in one pass', async () => {
  const inputs = [[2, 5, 16], [2, 5, 16], [2, 5, 1], [1, 5, 1], [16]].map((shape) => rng.randn(shape));
  const [x, y, gate, shared, row] = inputs.map((array) => variable(array));
  const names = (outputs: Tensor[]) => reachable(withBlockedLayout(outputs, 16)).map(({ op }) => op.name);
  const fused = ([x, y, gate]: Tensor[]) => [x.add(y.mul(gate)), gate.mul(y).add(x), x.sub(y.mul(gate)).sub(y)];
  for (const [i, plain] of fused([x, y, gate]).entries()) {
    expect(names([plain]).filter((name) => name === 'gatedAdd')).toHaveLength(1);
    await expectSame((...xs) => [fused(xs)[i]], inputs.slice(0, 3));
  }
  const product = y.mul(gate);
  const others = [
    x.add(y.mul(shared)),
    x.add(row.mul(gate)),
    x.add(y.mul(y)),
    y.mul(gate).sub(x),
    row.sub(y.mul(gate)),
  ];
  for (const outputs of [[x.add(product), product], ...others.map((x) => [x])])
    expect(names(outputs)).not.toContain('gatedAdd');

  const residual = (x: Tensor, y: Tensor) => y.add(normalize(x).mul(2).tanh());
  expect(names(gradients(residual(x, y).square().sum(), [x])).filter((name) => name === 'gatedAdd')).toHaveLength(1);
  await expectSame((x, y) => [residual(x, y).square()], inputs.slice(0, 2));
});

/** In blocks, and as the graph was traced. */
async function expectSame(build: (...xs: Tensor[]) => Tensor[], inputs: NdArray[]): Promise<void> {
  const f = (...xs: Tensor[]) => {
    const [y] = build(...xs);
    return [y, ...gradients(y.tanh().sum(), xs)];
  };
  const blocked = compile(f);
  const [results, expected] = [await blocked(...inputs), await asTraced(f, inputs)];
  for (const [i, { shape, data }] of expected.entries()) {
    const largest = (values: Float32Array) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const difference = (data as Float32Array).map((value, k) => value - (results[i].data[k] as number));
    expect(results[i].shape).toEqual(shape);
    const scale = largest(data as Float32Array) || 1;
    expect(largest(difference) / scale, `result ${i}`).toBeLessThan(1e-5);
  }
  await blocked.release();
}

async function asTraced(f: (...xs: Tensor[]) => Tensor[], values: NdArray[]): Promise<NdArray[]> {
  const symbols = values.map((x) => input(x.shape, x.dtype));
  const names = new Map(symbols.map((x, i) => [x, `i${i}`]));
  const { graph, outputNames } = emitGraph({ inputs: names, weights: new Map(), outputs: f(...symbols) });
  const session = await Session.create(graph, { device: 'cpu', optimization: 'none' });
  const fed = symbols.map((x, i) => [names.get(x)!, toDeviceValue(values[i])] as const);
  const read = new Set(graph.inputs.map(({ name }) => name));
  const results = await session.run(Object.fromEntries(fed.filter(([name]) => read.has(name))), outputNames);
  const arrays = outputNames.map((name) => toHost(results[name]));
  await session.release();
  return arrays;
}

it('finds the size of a block', async () => {
  expect([8, 16]).toContain(await convBlock());
});

it('keeps files that others read plain', () => {
  const w = variable(rng.randn([16, 16, 3, 3]));
  const x = { shape: [1, 16, 4, 4], dtype: 'float32' } as const;
  expect(Buffer.from(toOnnx(({ x }) => ({ y: conv2d(x, w) }), { x })).toString('latin1')).not.toContain('nchwc');
});

it('re-lays out a weight once for all parts of a batch', async () => {
  const w = variable(rng.randn([16, 16, 3, 3]));
  const x = rng.randn([8, 16, 6, 6]);
  const loss = (x: Tensor) => conv2d(x, w, undefined, { padding: 1 }).square().sum();
  const whole = compile((x: Tensor) => [loss(x), ...gradients(loss(x), [w])], { freeze: true });
  const parts = compile((x: Tensor) => sumOverParts(2, [x], ([x]) => [loss(x), ...gradients(loss(x), [w])]));
  const [[a, b], [c, d]] = [await whole(x), await parts(x)];
  expect((c.data[0] as number) / (a.data[0] as number)).toBeCloseTo(1, 5);
  for (const [i, value] of (b.data as Float32Array).entries()) expect(d.data[i]).toBeCloseTo(value, 1);
});
