import { expect, test } from 'vitest';
import { type NdArray, ndarray } from '../../array/index.js';
import type { Module } from '../../nn/index.js';
import { Generator } from '../../random/index.js';
import { compile, gradients, type Tensor } from '../../tensor/index.js';
import { ActNorm, initializingActNorm } from './actNorm.js';
import { AffineCoupling, MaskedAffineCoupling, mergeFeatures, splitFeatures, splitModes } from './affineCoupling.js';
import { MLP } from './conditioners.js';
import { bitsPerDim, checkPixels, dequantize, Logit } from './dequantize.js';
import { Flattened } from './flatten.js';
import { type Flow, FlowSequence, Inverted } from './flow.js';
import { DiagonalNormal, FlowModel, StandardLogistic } from './flowModel.js';
import { Glow } from './glow.js';
import { glowStep } from './glowBlock.js';
import { Invertible1x1Conv, LuInvertible1x1Conv } from './invertible1x1.js';
import { MaskedAutoregressiveFlow } from './maf.js';
import { inverse, logAbsDet } from './matrix.js';
import { NICE } from './nice.js';
import { EvenOdd, Reverse, Shuffle, SwapHalves } from './permute.js';
import { PlanarFlow } from './planar.js';
import { RadialFlow } from './radial.js';
import { RealNVP } from './realNvp.js';
import { Squeeze, squeezeDiagonals, unsqueezeDiagonals } from './squeeze.js';

const rng = () => new Generator(3);

/** Moves all trained weights a little, so that nothing is left at zero. */
function stirred<M extends Module>(module: M, size = 0.2): M {
  const noise = new Generator(7);
  for (const v of module.parameters()) {
    const { data } = noise.normal(v.shape, 0, size);
    v.set(
      ndarray(
        (v.value.data as Float32Array).map((x, i) => x + data[i]),
        v.shape,
      ),
    );
  }
  return module;
}

const mlp = (...sizes: number[]) => new MLP(sizes, {}, rng());
const steep = (flow: PlanarFlow) => {
  flow.w.set(ndarray([2, -1, 1.5, 0.5], [1, 4]));
  return flow;
};

const flows: Readonly<Record<string, [() => Flow, readonly number[]]>> = {
  planar: [() => steep(new PlanarFlow([4], {}, rng())), [4]],
  'planar, bent': [() => steep(new PlanarFlow([4], { activation: 'leaky_relu' }, rng())), [4]],
  radial: [() => stirred(new RadialFlow([4], rng())), [4]],
  actnorm: [() => stirred(new ActNorm([2, 1, 1])), [2, 2, 2]],
  '1x1 convolution': [() => stirred(new Invertible1x1Conv(3, rng())), [3, 1, 2]],
  '1x1 convolution, factorised': [() => stirred(new LuInvertible1x1Conv(3, rng())), [3, 1, 2]],
  'affine coupling': [() => stirred(new AffineCoupling(mlp(3, 8, 4))), [5]],
  'affine coupling, checkerboard': [
    () => stirred(new AffineCoupling(mlp(2, 8, 4), { split: 'checkerboard', scaleMap: 'sigmoid' })),
    [4],
  ],
  'masked coupling': [() => stirred(new MaskedAffineCoupling([1, 0, 0, 1], mlp(4, 8, 4), mlp(4, 8, 4))), [4]],
  swap: [() => new SwapHalves(), [5]],
  shuffle: [() => new Shuffle(5, rng()), [5]],
  reverse: [() => new Reverse(), [2, 3]],
  'even and odd': [() => new EvenOdd(), [1, 2, 3]],
  squeeze: [() => new Squeeze(), [1, 2, 4]],
  nice: [() => stirred(new NICE(6, { hiddenLayers: 1, hiddenFeatures: 8 }, rng())), [1, 2, 3]],
  maf: [() => stirred(new MaskedAutoregressiveFlow(4, { hiddenFeatures: 16 }, rng())), [4]],
  'maf of images': [
    () => stirred(new Flattened(new MaskedAutoregressiveFlow(4, { hiddenFeatures: 8 }, rng()))),
    [1, 2, 2],
  ],
  'inverse autoregressive flow': [
    () =>
      stirred(
        new Inverted(new MaskedAutoregressiveFlow(3, { hiddenFeatures: 8, residual: false, randomMask: true }, rng())),
      ),
    [3],
  ],
  'glow step': [() => stirred(glowStep(4, { hiddenChannels: 4 }, rng())), [4, 2, 2]],
  realnvp: [() => stirred(new RealNVP({ inChannels: 1, midChannels: 2, blocks: 1 }, rng())), [1, 4, 4]],
  glow: [
    () => stirred(new Glow({ inChannels: 1, midChannels: 4, levels: 2, steps: 2, lu: false }, rng()), 0.1),
    [1, 4, 4],
  ],
  logit: [() => new Inverted(new Logit()), [3]],
};

const valuesOf = (x: NdArray): number[] => [...(x.data as Float32Array)];
const apart = (a: NdArray, b: NdArray): number =>
  Math.max(...valuesOf(a).map((x, i) => Math.abs(x - Number(b.data[i]))));

test.each(Object.keys(flows))('%s inverts to 1e-4, and its log-determinant is that of its Jacobian', async (name) => {
  const [make, shape] = flows[name];
  const flow = make();
  const size = shape.reduce((a, b) => a * b, 1);
  const there = compile((x: Tensor) => ({ ...flow.forward(x) }));
  const back = compile((z: Tensor) => ({ ...flow.inverse(z) }));
  const x = new Generator(11).randn([2, ...shape]);
  const { z, logDet } = await there(x);
  const returned = await back(z);
  expect(apart(returned.x, x)).toBeLessThan(1e-4);
  expect(apart(returned.logDet, ndarray(valuesOf(logDet).map((d) => -d)))).toBeLessThan(1e-3);

  const step = 4e-3;
  const moved = Array.from({ length: 2 * size }, (_, k) => {
    const one = x.data.slice(0, size);
    one[k >> 1] += k % 2 ? -step : step;
    return [...one];
  });
  const ends = valuesOf((await there(ndarray(moved.flat(), [2 * size, ...shape]))).z);
  const jacobian = Float64Array.from({ length: size * size }, (_, k) => {
    const [row, column] = [Math.floor(k / size), k % size];
    return (ends[2 * column * size + row] - ends[(2 * column + 1) * size + row]) / (2 * step);
  });
  expect(Math.abs(logAbsDet(name, jacobian, size) - Number(logDet.data[0]))).toBeLessThan(5e-3 * Math.sqrt(size));
});

test('all splits are undone by their merges, and checkerboards keep no neighbours', async () => {
  const x = rng().randn([2, 3, 2, 4]);
  const run = compile((t: Tensor) => ({
    merged: splitModes.map((mode) => mergeFeatures(...splitFeatures(t, mode), mode)),
    kept: splitFeatures(t, 'checkerboard')[0],
    squeezed: unsqueezeDiagonals(squeezeDiagonals(t)),
  }));
  const { merged, kept, squeezed } = await run(x);
  for (const array of [...merged, squeezed]) expect(apart(array, x)).toBe(0);
  expect(valuesOf(kept).slice(0, 4)).toEqual([1, 3, 4, 6].map((i) => x.data[i]));
});

const couplings = (dim: number, blocks: number) =>
  new FlowSequence<Flow>(
    Array.from({ length: blocks }, () => [
      new AffineCoupling(new MLP([dim / 2, 16, dim], { zeroInit: true, limit: 4 }, rng())),
      new SwapHalves(),
    ]).flat(),
  );

const densities: Readonly<Record<string, () => FlowModel>> = {
  realnvp: () => stirred(new FlowModel(new DiagonalNormal([2]), couplings(2, 4)), 0.1),
  planar: () => new FlowModel(new DiagonalNormal([2]), new PlanarFlow([2], {}, rng())),
  radial: () => new FlowModel(new DiagonalNormal([2]), stirred(new RadialFlow([2], rng()))),
  maf: () =>
    stirred(new FlowModel(new DiagonalNormal([2]), new MaskedAutoregressiveFlow(2, { hiddenFeatures: 8 }, rng()))),
  'nice with logistic latents': () =>
    new FlowModel(new StandardLogistic([2]), new NICE(2, { hiddenLayers: 1, hiddenFeatures: 8 }, rng())),
};

test.each(Object.keys(densities))('the density of %s integrates to 1', async (name) => {
  const model = densities[name]();
  const [side, reach] = [201, 10];
  const step = (2 * reach) / (side - 1);
  const grid = Array.from({ length: side * side }, (_, k) => [
    -reach + step * Math.floor(k / side),
    -reach + step * (k % side),
  ]);
  const { data } = await compile((x: Tensor) => model.logProb(x))(ndarray(grid.flat(), [side * side, 2]));
  const mass = (data as Float32Array).reduce((sum, logProb) => sum + Math.exp(logProb), 0) * step ** 2;
  expect(Math.abs(mass - 1)).toBeLessThan(0.01);
});

test('gradients pass through the numerical inverse of the planar flow and the host inverse of a matrix', async () => {
  const planar = new PlanarFlow([3], {}, rng());
  const mixing = new Invertible1x1Conv(3, rng());
  const x = rng().randn([4, 3]);
  const cases: [Module, () => Tensor, (x: Tensor) => Tensor][] = [
    [planar, () => planar.u, (t) => planar.forward(t).z.square().sum().add(planar.forward(t).logDet.sum())],
    [
      mixing,
      () => mixing.weight,
      (t) => {
        const { x: back, logDet } = mixing.inverse(t.reshape([4, 3, 1, 1]));
        return back.square().sum().add(logDet.sum());
      },
    ],
  ];
  for (const [, weight, loss] of cases) {
    const variable = weight() as PlanarFlow['u'];
    const start = variable.value.data.slice() as Float32Array;
    const run = compile((t: Tensor) => ({ slope: gradients(loss(t), [variable])[0], loss: loss(t) }));
    const slope = valuesOf((await run(x)).slope)[1];
    const at = async (by: number) => {
      const data = start.slice();
      data[1] += by;
      variable.set(ndarray(data, variable.shape));
      return Number((await run(x)).loss.data[0]);
    };
    const step = 1e-2;
    expect(((await at(step)) - (await at(-step))) / (2 * step)).toBeCloseTo(slope, 1);
  }
});

test('the first batch starts actnorm at mean 0 and variance 1', async () => {
  const norm = new ActNorm([3, 1, 1]);
  const x = new Generator(1).normal([8, 3, 4, 4], 5, 3);
  await compile((t: Tensor) => initializingActNorm(() => norm.forward(t).z))(x);
  const { z } = await compile((t: Tensor) => ({ z: norm.forward(t).z }))(x);
  const values = valuesOf(z);
  const mean = values.reduce((a, b) => a + b) / values.length;
  expect(mean).toBeCloseTo(0, 4);
  expect(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length).toBeCloseTo(1, 3);
  expect(norm.isInitialized.value.data[0]).toBe(1);
});

test('a density that is uniform over the levels takes 8 bits a value', async () => {
  const dims = 5;
  const run = compile((x: Tensor, u: Tensor) => ({ y: dequantize(x, u), bits: bitsPerDim(x.mul(0).sum(1), dims) }));
  const { y, bits } = await run(ndarray([0, 1, 0.2, 0.4, 128 / 255], [1, dims]), ndarray([0, 0.5, 0, 0, 0], [1, dims]));
  expect(bits.data[0]).toBeCloseTo(8, 5);
  expect(valuesOf(y)[4]).toBeCloseTo(0.5, 6);
  expect(valuesOf(y)[1]).toBeLessThan(1);
});

test('what cannot be done is refused by name', async () => {
  expect(() => new NICE(7, {}, rng())).toThrow('NICE: 7 features, expected an even number');
  const x = rng().randn([1, 1, 6, 5]);
  const run = (flow: Flow, array: NdArray) => compile((t: Tensor) => ({ ...flow.forward(t) }))(array);
  await expect(run(new Glow({ inChannels: 1, levels: 1, steps: 1, midChannels: 4 }, rng()), x)).rejects.toThrow(
    'Glow: images of 6 x 5, expected multiples of 2',
  );
  await expect(run(new RealNVP({ inChannels: 3, blocks: 1, midChannels: 4 }, rng()), x)).rejects.toThrow(
    'RealNVP: input [1,1,6,5], expected [N, 3, H, W]',
  );
  await expect(run(new Squeeze(), x)).rejects.toThrow('squeeze: images of 6 x 5, expected even sides');
  await expect(run(new AffineCoupling(mlp(1, 2)), rng().randn([2, 1]))).rejects.toThrow(
    '1 channels, expected at least 2',
  );
  const mixing = new Invertible1x1Conv(2, rng());
  mixing.weight.set(ndarray([1, 2, 2, 4], [2, 2]));
  await expect(run(mixing, rng().randn([1, 2, 2, 2]))).rejects.toThrow('matrix is singular');
  expect(() => checkPixels('bits', ndarray([0, 1.5]))).toThrow('bits: pixel 1.5 at element 1, expected 0..1');
  expect(() => new Logit(1)).toThrow('Logit: constraint 1');
  expect(() => inverse('m', [0, 0, 0, 0], 2)).toThrow('singular');
});
