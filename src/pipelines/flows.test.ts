import { expect, test } from 'vitest';
import { type NdArray, ndarray } from '../array/index.js';
import {
  AffineCoupling,
  DiagonalNormal,
  Flattened,
  type Flow,
  FlowModel,
  FlowSequence,
  Glow,
  Logit,
  MaskedAutoregressiveFlow,
  MLP,
  OdeNet,
  odeLayerTypes,
  Reverse,
  SwapHalves,
} from '../models/index.js';
import { Generator } from '../random/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { FlowTraining } from '../training/index.js';
import { ContinuousFlow, SteppedFlow } from './continuousFlow.js';
import { decodeFlow, encodeFlow, flowLogProb, imageBitsPerDim, interpolateFlow, sampleFlow } from './flows.js';

const rng = () => new Generator(5);
const apart = (a: NdArray, b: NdArray): number =>
  Math.max(...[...(a.data as Float32Array)].map((x, i) => Math.abs(x - Number(b.data[i]))));
const sum = (x: NdArray): number => (x.data as Float32Array).reduce((a, b) => a + b, 0);

test('a flow learns a shifted, stretched normal, and its samples follow it and the temperature', async () => {
  const net = () => new MLP([1, 8, 2], { zeroInit: true }, rng());
  const flows: Flow[] = [new AffineCoupling(net()), new SwapHalves(), new AffineCoupling(net())];
  const model = new FlowModel(new DiagonalNormal([2]), new FlowSequence(flows));
  const data = new Generator(1);
  const batch = () => ndarray(data.normal([256, 2], 3, 0.5).data, [256, 2]);
  const training = new FlowTraining({ model, learningRate: 3e-2 });
  let loss = 0;
  for (let step = 0; step < 150; step++) ({ loss } = await training.step(batch()));
  await training.release();
  expect(loss).toBeLessThan(Math.log(2 * Math.PI * Math.E) + 2 * Math.log(0.5) + 0.15);
  const spread = async (temperature: number) => {
    const values = [...(await sampleFlow({ model, count: 500, temperature })).data];
    const mean = values.reduce((a, b) => a + b) / values.length;
    return { mean, std: Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length) };
  };
  expect((await spread(1)).mean).toBeCloseTo(3, 0);
  expect((await spread(1)).std).toBeCloseTo(0.5, 0);
  expect((await spread(0.5)).std).toBeLessThan(0.7 * (await spread(1)).std);
  const ends = batch();
  const two = ndarray(ends.data.slice(0, 4), [2, 2]);
  const way = await interpolateFlow({ model, ends: two, count: 5 });
  expect(way.shape).toEqual([5, 2]);
  expect(Math.hypot(way.data[0] - two.data[0], way.data[9] - two.data[3])).toBeLessThan(1e-4);
  expect((await flowLogProb({ model, x: two })).shape).toEqual([2]);
});

test('Glow starts its actnorms from a batch and learns images, whose bits it tells', async () => {
  const flow = new Glow({ inChannels: 1, midChannels: 8, levels: 1, steps: 2 }, rng());
  const model = new FlowModel(
    new DiagonalNormal([1, 4, 4], { trainable: false }),
    new FlowSequence<Flow>([new Logit(), flow]),
  );
  const images = ndarray(
    Float32Array.from({ length: 32 * 16 }, (_, i) => ((i * 37) % 16 < 8 ? 20 : 200) / 255),
    [32, 1, 4, 4],
  );
  const training = new FlowTraining({ model, images: true, learningRate: 1e-2 });
  await training.start(images);
  const { loss: first } = await training.step(images);
  let last = first;
  for (let step = 0; step < 20; step++) ({ loss: last } = await training.step(images));
  expect(last).toBeLessThan(first - 5);
  const bits = await imageBitsPerDim({ model, images });
  expect(bits.shape).toEqual([32]);
  expect(sum(bits) / 32).toBeLessThan(8);
  await expect(imageBitsPerDim({ model, images: ndarray([2], [1, 1, 1, 1]) })).rejects.toThrow('pixel 2 at element 0');
  await expect(sampleFlow({ model, count: 1, temperature: -1 })).rejects.toThrow('temperature -1');
});

test('masked autoregressive flows are solved for by repeated passes, as exactly as by one for each variable', async () => {
  const part = () => new MaskedAutoregressiveFlow(9, { hiddenFeatures: 12, residual: false, randomMask: true }, rng());
  const flow = new FlowSequence<Flow>([new Logit(), new Flattened(part()), new Reverse(), new Flattened(part())]);
  const model = new FlowModel(new DiagonalNormal([1, 3, 3]), flow);
  const noise = rng();
  for (const v of model.parameters()) v.set(noise.normal(v.shape, 0, 0.5));
  const z = new Generator(2).randn([4, 1, 3, 3]);
  const { x } = await compile((t: Tensor) => ({ ...model.inverse(t) }))(z);
  const solved = await decodeFlow({ model, z });
  expect(apart(solved, x)).toBeLessThan(1e-5);
  expect(apart(await encodeFlow({ model, x: solved }), z)).toBeLessThan(1e-3);
});

const toyNet = () => new OdeNet({ inputShape: [2], hiddenDims: [8], layerType: 'concatsquash' }, rng());

test('a continuous flow returns to where it came from, and solved in steps it is the same flow', async () => {
  const field = toyNet();
  const flow = new ContinuousFlow({ field, dtype: 'float64', solver: { rtol: 1e-8, atol: 1e-8 } });
  const x = rng().randn([4, 2], 'float64');
  const solution = await flow.forward(x);
  const back = await flow.inverse(solution.y, undefined, solution.logp);
  expect(apart(back.y, x)).toBeLessThan(1e-6);
  expect(apart(back.logp, ndarray([0, 0, 0, 0]))).toBeLessThan(1e-6);
  const stepped = new SteppedFlow(field);
  const { z, logDet } = await compile((t: Tensor) => ({ ...stepped.forward(t) }))(
    ndarray(Float32Array.from(x.data), [4, 2]),
  );
  expect(apart(z, solution.y)).toBeLessThan(1e-5);
  expect(apart(logDet, ndarray([...solution.logp.data].map((l) => -Number(l))))).toBeLessThan(1e-4);
  await flow.release();
});

test("Hutchinson's trace is the exact one on average", async () => {
  const flow = new ContinuousFlow({ field: toyNet(), solver: { rtol: 1e-4, atol: 1e-4 } });
  const one = rng().randn([1, 2]).data;
  const x = ndarray(
    Float32Array.from({ length: 1024 }, (_, i) => one[i % 2]),
    [512, 2],
  );
  const signs = new Generator(2).rand([512, 2]).data.map((u) => (u < 0.5 ? 1 : -1));
  const [exact, estimate] = [await flow.forward(x), await flow.forward(x, ndarray(signs, [512, 2]))];
  expect(Math.abs(sum(exact.logp) - sum(estimate.logp)) / 512).toBeLessThan(0.02);
  await flow.release();
});

test('the adjoint gives the gradients of the solution, for the weights and for x', async () => {
  const field = toyNet();
  const flow = new ContinuousFlow({ field, dtype: 'float64', solver: { rtol: 1e-8, atol: 1e-8 } });
  const x = rng().randn([2, 2], 'float64');
  const [y, logp] = [ndarray([1, 2, -1, 0.5], [2, 2], 'float64'), ndarray([1, -2], [2, 1], 'float64')];
  const solution = await flow.forward(x);
  const slopes = await flow.gradients({ solution, x, y, logp });
  const lossAt = async (from: NdArray) => {
    const end = await flow.forward(from);
    const dot = (a: NdArray, b: NdArray) =>
      (a.data as Float64Array).reduce((total, value, i) => total + value * Number(b.data[i]), 0);
    return dot(end.y, y) + dot(end.logp, logp);
  };
  const moved = (by: number) => ndarray([x.data[0] + by, ...x.data.slice(1)], [2, 2], 'float64');
  const slope = ((await lossAt(moved(1e-3))) - (await lossAt(moved(-1e-3)))) / 2e-3;
  expect(slope).toBeCloseTo(Number(slopes.x.data[0]), 4);
  const { weight } = field.layers[0].layer!;
  const start = weight.value.data.slice() as Float32Array;
  const weighed = async (by: number) => {
    weight.set(ndarray([start[0] + by, ...start.slice(1)], weight.shape));
    return lossAt(x);
  };
  const ofWeight = ((await weighed(1 / 128)) - (await weighed(-1 / 128))) * 64;
  expect(ofWeight).toBeCloseTo(Number(slopes.parameters.get('layers.0.layer.weight')!.data[0]), 3);
  await flow.release();
});

test('the density of a continuous flow integrates to 1', async () => {
  const model = new FlowModel(new DiagonalNormal([2]), new SteppedFlow(toyNet(), { steps: 4 }));
  const [side, reach] = [121, 9];
  const step = (2 * reach) / (side - 1);
  const grid = Array.from({ length: side * side }, (_, k) =>
    [Math.floor(k / side), k % side].map((i) => i * step - reach),
  );
  const logProb = await flowLogProb({ model, x: ndarray(grid.flat(), [side * side, 2]) });
  expect(sum({ ...logProb, data: logProb.data.map(Math.exp) }) * step ** 2).toBeCloseTo(1, 2);
});

test('every kind of layer sees the time but one, and keeps the shape of images', async () => {
  for (const layerType of odeLayerTypes) {
    const options = { layerType, nonlinearity: 'tanh' } as const;
    const nets = [
      { net: new OdeNet({ inputShape: [3], hiddenDims: [4], ...options }, rng()), y: rng().randn([2, 3]) },
      {
        net: new OdeNet(
          { inputShape: [4, 2, 2], hiddenDims: [3, 3], strides: [2, -2, 1], squeezes: 1, ...options },
          rng(),
        ),
        y: rng().randn([2, 1, 4, 4]),
      },
    ];
    for (const { net, y } of nets) {
      const noise = rng();
      for (const v of net.parameters()) v.set(noise.normal(v.shape, 0, 0.5));
      const run = compile((t: Tensor, state: Tensor) => ({ dy: net.forward(t, state) }));
      const [early, late] = [await run(ndarray([0.1], []), y), await run(ndarray([0.9], []), y)];
      expect(early.dy.shape).toEqual(y.shape);
      expect(apart(early.dy, late.dy) > 1e-4, layerType).toBe(layerType !== 'ignore');
    }
  }
  expect(() => new OdeNet({ inputShape: [1], hiddenDims: [2], strides: [1] }, rng())).toThrow('1 strides, expected 2');
});
