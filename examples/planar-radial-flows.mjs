// Planar and radial flows (docs/flows.md): the densities p(z) = exp(-U(z)) / Z of Rezende and Mohamed (2015), table 1, fitted
// without data: q's own samples lower KL(q || p) + log 1/Z = E_q [log q(z) + U(z)], and p's own Z is known from a grid.
// Writes docs/images/flows-planar-radial.png. Run: npm run build && node examples/planar-radial-flows.mjs
import { fileURLToPath } from 'node:url';
import {
  adamW,
  compile,
  DiagonalNormal,
  FlowModel,
  FlowSequence,
  Generator,
  gradients,
  ndarray,
  PlanarFlow,
  RadialFlow,
  randn,
  sampleFlow,
} from 'noisewright';
import { savePng } from 'noisewright/node';

const bump = (x, middle, width) => x.sub(middle).div(width).square().mul(-0.5).exp();
/** -log(exp a + exp b) of what the paper writes as a sum of two. */
const either = (a, b) => a.maximum(b).add(a.sub(b).abs().neg().exp().add(1).log()).neg();
const near = (x, middle, width) => x.sub(middle).div(width).square().mul(-0.5);
const wave = (x) => x.mul(Math.PI / 2).sin();
/** U(z) of the two columns of z, [N, 1] each. */
const energies = {
  arcs: (x, y) =>
    x
      .square()
      .add(y.square())
      .sqrt()
      .sub(2)
      .div(0.4)
      .square()
      .mul(0.5)
      .add(either(near(x, 2, 0.6), near(x, -2, 0.6))),
  wave: (x, y) => y.sub(wave(x)).div(0.4).square().mul(0.5),
  fork: (x, y) => either(near(y.sub(wave(x)), 0, 0.35), near(y.sub(wave(x)).add(bump(x, 1, 0.6).mul(3)), 0, 0.35)),
  lanes: (x, y) => {
    const step = x.sub(1).div(0.3).sigmoid().mul(3);
    return either(near(y.sub(wave(x)), 0, 0.4), near(y.sub(wave(x)).add(step), 0, 0.35));
  },
};
/** U of points [N, 2], [N]. The waves have no ends: beyond |x| = 4 the energy rises, or there would be no Z. */
const energy = (name, z) => {
  const [x, y] = [z.slice(1, 0, 1), z.slice(1, 1, 2)];
  const beyond = x.abs().sub(4).maximum(0).square().mul(8);
  return energies[name](x, y).add(beyond).reshape([z.shape[0]]);
};

const [steps, batch, learningRate] = [2000, 256, 5e-3];
const families = {
  'planar, K = 8': (rng) => Array.from({ length: 8 }, () => new PlanarFlow([2], {}, rng)),
  'planar, K = 32': (rng) => Array.from({ length: 32 }, () => new PlanarFlow([2], {}, rng)),
  'radial, K = 32': (rng) => Array.from({ length: 32 }, () => new RadialFlow([2], rng)),
};

/** Annealed as in the paper: the energy's share rises to 1, so that q finds every mode before it must choose. */
async function fitted(name, flows, rng) {
  const model = new FlowModel(new DiagonalNormal([2]), new FlowSequence(flows));
  const optimizer = adamW(model.namedParameters(), { weightDecay: 0 });
  const energyOf = (z, share) => energy(name, z).mul(share);
  const bound = (n, share) => {
    const noise = randn([n, 2], rng);
    const z0 = noise.mul(model.base.logScale.exp()).add(model.base.loc);
    const { x, logDet } = model.flow.inverse(z0);
    return model.base.logProb(z0).sub(logDet).add(energyOf(x, share)).mean();
  };
  const step = compile(
    (share, numbers) => {
      const loss = bound(batch, share);
      optimizer.update(gradients(loss, model.parameters()), numbers);
      return loss;
    },
    { threads: 1 },
  );
  for (let i = 1; i <= steps; i++) {
    const rate = learningRate * 0.5 * (1 + Math.cos((Math.PI * i) / steps));
    const share = Math.min(1, 0.01 + (2 * i) / steps);
    await step(
      ndarray([share], []),
      optimizer.hyperparameters(i, rate).map((x) => ndarray([x], [])),
    );
  }
  await step.release();
  const ask = compile(() => bound(20_000, 1), { threads: 1 });
  const value = (await ask()).data[0];
  await ask.release();
  return { model, bound: value };
}

const [side, reach, gap] = [150, 5, 6];
const cells = Array.from({ length: side * side }, (_, k) => [
  (((k % side) + 0.5) / side) * 2 * reach - reach,
  reach - ((Math.floor(k / side) + 0.5) / side) * 2 * reach,
]);
/** Points as how many fall on a pixel. */
const counted = ({ data }) => {
  const pixels = new Float32Array(side * side);
  for (let i = 0; i < data.length; i += 2) {
    const column = Math.floor(((data[i] + reach) / (2 * reach)) * side);
    const row = Math.floor(((reach - data[i + 1]) / (2 * reach)) * side);
    if (column >= 0 && column < side && row >= 0 && row < side) pixels[row * side + column] += 1;
  }
  return pixels;
};

const started = Date.now();
const grid = ndarray(Float32Array.from(cells.flat()), [side * side, 2]);
const columns = [];
for (const name of Object.keys(energies)) {
  const density = compile((z) => energy(name, z).neg().exp(), { threads: 1 });
  const target = (await density(grid)).data;
  await density.release();
  const logZ = Math.log(target.reduce((a, b) => a + b, 0) * ((2 * reach) / side) ** 2);
  const column = [target];
  for (const [family, build] of Object.entries(families)) {
    const rng = new Generator(0);
    const { model, bound } = await fitted(name, build(rng), rng);
    const samples = await sampleFlow({ model, count: 200_000, compile: { threads: 1 } });
    column.push(counted(samples));
    const seconds = ((Date.now() - started) / 1000).toFixed(0);
    console.log(`${name}: ${family}: KL(q || p) ${(bound + logZ).toFixed(3)} nats; ${seconds} s since the start`);
  }
  columns.push(column);
}

const rows = columns[0].length;
const [width, height] = [columns.length * (side + gap) - gap, rows * (side + gap) - gap];
const picture = { width, height, channels: 3, data: new Uint8Array(width * height * 3).fill(255) };
columns.forEach((column, c) => {
  column.forEach((values, r) => {
    const top = [...values].sort((a, b) => a - b)[Math.floor(values.length * 0.995)];
    values.forEach((value, k) => {
      const share = Math.min(1, value / top);
      const at = 3 * ((r * (side + gap) + Math.floor(k / side)) * width + c * (side + gap) + (k % side));
      picture.data.set([255 - 215 * share, 255 - 175 * share, 255 - 90 * share].map(Math.round), at);
    });
  });
});
await savePng(fileURLToPath(new URL('../docs/images/flows-planar-radial.png', import.meta.url)), picture);
