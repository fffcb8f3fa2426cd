// Normalizing flows in two dimensions (docs/flows.md): RealNVP and FFJORD learn two moons by maximum likelihood.
// Writes docs/images/flows.png. Run: npm run build && node examples/normalizing-flows.mjs
import { fileURLToPath } from 'node:url';
import {
  AffineCoupling,
  DiagonalNormal,
  FlowModel,
  FlowSequence,
  FlowTraining,
  flowLogProb,
  Generator,
  MLP,
  ndarray,
  OdeNet,
  SteppedFlow,
  SwapHalves,
  sampleFlow,
} from 'noisewright';
import { savePng } from 'noisewright/node';

const rng = new Generator(0);
const noise = 0.1;
/** A place on one of the two half circles. */
const moon = (u, side) => {
  const [x, y] = [Math.cos(Math.PI * u), Math.sin(Math.PI * u)];
  return (side ? [x - 0.5, y - 0.25] : [0.5 - x, 0.25 - y]).map((p) => 1.5 * p);
};

function moons(n) {
  const [blur, places, sides] = [rng.randn([n, 2]).data, rng.rand([n]).data, rng.rand([n]).data];
  const points = [...places].flatMap((u, i) => moon(u, sides[i] < 0.5));
  return ndarray(
    Float32Array.from(points, (p, i) => p + noise * blur[i]),
    [n, 2],
  );
}

/** log p of the data's own distribution: its integral over both half circles. */
function trueLogProb({ data }, n) {
  const arcs = [0, 1].flatMap((side) => Array.from({ length: 400 }, (_, k) => moon((k + 0.5) / 400, side)));
  return Array.from({ length: n }, (_, i) => {
    const masses = arcs.map(([x, y]) =>
      Math.exp(-((data[2 * i] - x) ** 2 + (data[2 * i + 1] - y) ** 2) / (2 * noise ** 2)),
    );
    return Math.log(masses.reduce((a, b) => a + b) / arcs.length / (2 * Math.PI * noise ** 2));
  });
}

const mean = (values) => [...values].reduce((a, b) => a + b, 0) / values.length;

const couplings = Array.from({ length: 8 }, () => [
  new AffineCoupling(new MLP([1, 64, 64, 2], { zeroInit: true, limit: 4 }, rng)),
  new SwapHalves(),
]);
const net = new OdeNet({ inputShape: [2], hiddenDims: [64, 64], layerType: 'concatsquash', nonlinearity: 'tanh' }, rng);
const models = {
  RealNVP: { flow: new FlowSequence(couplings.flat()), steps: 4000, learningRate: 1e-3 },
  FFJORD: { flow: new SteppedFlow(net, { steps: 6 }), steps: 2000, learningRate: 5e-3 },
};
const test = moons(4000);
console.log(`the data itself: ${(-mean(trueLogProb(test, 4000))).toFixed(3)} nats`);

const side = 180;
const reach = 2.6;
const grid = Array.from({ length: side * side }, (_, k) => [
  ((k % side) / side) * 2 * reach - reach,
  reach - (Math.floor(k / side) / side) * 2 * reach,
]);
const places = ndarray(grid.flat(), [side * side, 2]);
/** Points as how many fall on a pixel. */
const counted = ({ data }) => {
  const pixels = new Float32Array(side * side);
  for (let i = 0; i < data.length; i += 2) {
    const [column, row] = [(data[i] + reach) / (2 * reach), (reach - data[i + 1]) / (2 * reach)].map((p) =>
      Math.floor(p * side),
    );
    if (column >= 0 && column < side && row >= 0 && row < side) pixels[row * side + column] += 1;
  }
  return pixels;
};
const panels = [[counted(moons(20_000))], [new Float32Array(side * side).fill(0)]];

for (const [name, { flow, steps, learningRate }] of Object.entries(models)) {
  const model = new FlowModel(new DiagonalNormal([2], { trainable: false }), flow);
  const training = new FlowTraining({ model, clipNorm: 5, compile: { threads: 1 } });
  const started = Date.now();
  for (let step = 0; step < steps; step++)
    await training.step(moons(256), learningRate * 0.5 * (1 + Math.cos((Math.PI * step) / steps)));
  await training.release();
  const nats = -mean((await flowLogProb({ model, x: test })).data);
  const back = await flowLogProb({ model, x: places });
  const mass = back.data.reduce((sum, logProb) => sum + Math.exp(logProb), 0) * ((2 * reach) / side) ** 2;
  console.log(
    `${name}: ${nats.toFixed(3)} nats, mass ${mass.toFixed(3)}, ${model.parameterCount()} weights, ${steps} steps in ${((Date.now() - started) / 1000).toFixed(0)} s`,
  );
  panels[0].push(back.data.map(Math.exp));
  panels[1].push(counted(await sampleFlow({ model, count: 20_000 })));
  if (name === 'FFJORD') panels[1][0] = counted(await sampleFlow({ model, count: 20_000, temperature: 0.5 }));
}

const gap = 6;
const [width, height] = [3 * side + 2 * gap, 2 * side + gap];
const picture = { width, height, channels: 3, data: new Uint8Array(width * height * 3).fill(255) };
panels.forEach((row, r) => {
  row.forEach((values, c) => {
    const top = [...values].sort((a, b) => a - b)[Math.floor(values.length * 0.995)];
    values.forEach((value, k) => {
      const share = Math.min(1, value / top);
      const at = 3 * ((r * (side + gap) + Math.floor(k / side)) * width + c * (side + gap) + (k % side));
      picture.data.set([255 - 215 * share, 255 - 175 * share, 255 - 90 * share].map(Math.round), at);
    });
  });
});
await savePng(fileURLToPath(new URL('../docs/images/flows.png', import.meta.url)), picture);
