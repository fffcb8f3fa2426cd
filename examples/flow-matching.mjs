// Flow matching in two dimensions (docs/flow-matching.md): eight Gaussians become two moons, with random pairs and with
// pairs of least cost. Writes docs/images/flow-matching.svg. Run: npm run build && node examples/flow-matching.mjs
import { writeFile } from 'node:fs/promises';
import {
  adamW,
  compile,
  concat,
  exactCoupling,
  Generator,
  gradients,
  ndarray,
  nn,
  onFlow,
  silu,
  straightFlow,
} from 'noisewright';

const rng = new Generator(0);
const uniform = (n) => [...rng.rand([n]).data];

function gaussians(n) {
  const noise = rng.randn([n, 2]).data;
  const corners = uniform(n).map((u) => (Math.floor(8 * u) * Math.PI) / 4);
  return ndarray(
    noise.map((x, i) => 0.2 * x + 3 * (i % 2 ? Math.sin : Math.cos)(corners[i >> 1])),
    [n, 2],
  );
}

function moons(n) {
  const noise = rng.randn([n, 2]).data;
  const [angles, sides] = [uniform(n), uniform(n)];
  const points = angles.flatMap((u, i) => {
    const [x, y] = [Math.cos(Math.PI * u), Math.sin(Math.PI * u)];
    return sides[i] < 0.5 ? [x - 0.5, y - 0.25] : [0.5 - x, 0.25 - y];
  });
  return ndarray(
    Float32Array.from(points, (p, i) => 1.5 * p + 0.08 * noise[i]),
    [n, 2],
  );
}

const reordered = ({ data, shape }, order) =>
  ndarray(Float32Array.from([...order].flatMap((i) => [data[2 * i], data[2 * i + 1]])), shape);

/** A network of the velocity at (x, t), trained on straight lines between pairs. */
async function trained(pair) {
  const layers = [
    [3, 64],
    [64, 64],
    [64, 64],
    [64, 2],
  ].map(([from, to]) => new nn.Linear(from, to, rng));
  const velocity = (x, t) => layers.reduce((y, layer, i) => layer.forward(i === 0 ? y : silu(y)), concat([x, t], 1));
  const parameters = new Map(
    layers.flatMap(({ weight, bias }, i) => [
      [`${i}.weight`, weight],
      [`${i}.bias`, bias],
    ]),
  );
  const optimizer = adamW(parameters, { weightDecay: 0 });
  const flow = straightFlow(0);
  const step = compile((x0, x1, t, numbers) => {
    const { x, velocity: target } = onFlow(flow, x0, x1, t, x0.mul(0));
    const loss = velocity(x, t).sub(target).square().mean();
    optimizer.update(gradients(loss, [...parameters.values()]), numbers);
    return loss;
  });
  const n = 256;
  let loss = 0;
  for (let k = 1; k <= 2000; k++) {
    const [x0, x1] = [gaussians(n), moons(n)];
    const t = rng.rand([n, 1]);
    const numbers = optimizer.hyperparameters(k, 2e-3).map((x) => ndarray([x], []));
    loss = Number((await step(x0, pair ? reordered(x1, exactCoupling(x0, x1)) : x1, t, numbers)).data[0]);
  }
  console.log(pair ? 'pairs of least cost' : 'random pairs', 'loss', loss.toFixed(3));
  return compile((x, t) => velocity(x, t));
}

/** The way of each point, by Euler's method. */
async function ways(velocity, start, steps) {
  const way = [start];
  for (let k = 0; k < steps; k++) {
    const v = await velocity(way[k], ndarray(new Float32Array(start.shape[0]).fill(k / steps), [start.shape[0], 1]));
    way.push(
      ndarray(
        way[k].data.map((x, i) => x + v.data[i] / steps),
        start.shape,
      ),
    );
  }
  return way;
}

const start = gaussians(160);
const panels = [];
for (const [column, pair] of [false, true].entries()) {
  const velocity = await trained(pair);
  for (const [row, steps] of [30, 2].entries()) {
    const way = await ways(velocity, start, steps);
    const at = (x, y) => `${(150 + 38 * x + 300 * column).toFixed(1)},${(150 + 38 * y + 320 * row).toFixed(1)}`;
    for (let i = 0; i < start.shape[0]; i++) {
      const points = way.map(({ data }) => at(data[2 * i], data[2 * i + 1]));
      const [cx, cy] = points.at(-1).split(',');
      panels.push(`<polyline points="${points.join(' ')}" fill="none" stroke="#999" stroke-width="0.5"/>`);
      panels.push(`<circle cx="${cx}" cy="${cy}" r="1.6" fill="#c33"/>`);
    }
    const title = `${pair ? 'pairs of least cost' : 'random pairs'}, ${steps} steps`;
    panels.push(`<text x="${150 + 300 * column}" y="${20 + 320 * row}" text-anchor="middle">${title}</text>`);
  }
}
await writeFile(
  new URL('../docs/images/flow-matching.svg', import.meta.url),
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 640" font-family="sans-serif" font-size="13"><rect width="600" height="640" fill="#fff"/>${panels.join('')}</svg>\n`,
);
