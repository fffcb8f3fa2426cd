// Norms against batch size, after figure 5 of Wu & He 2018:
//   node docs/scripts/normsBatchSize.mjs runs/norms.jsonl docs/images/norms-batch-size.svg
// Stopped, it goes on where it was; --seeds 0 and --only batch do a part.
import { parseArgs } from 'node:util';
import { batches, compile, crossEntropy, Generator, gradients, ndarray, nn, sgd } from 'noisewright';
import { saveCharts } from '../../dist/src/cli/chart.js';
import { compile as how, heldOut, markdown, mean, notebook, spread, training } from './comparison.mjs';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, seeds: { type: 'string', default: '0,1,2' } },
});
const [path, picture] = positionals;
const { rows, once } = notebook(path);
const norms = {
  batch: (channels) => new nn.BatchNorm(channels),
  layer: (channels) => new nn.GroupNorm(1, channels), // γ and β per channel, as in the paper
  instance: (channels) => new nn.InstanceNorm2d(channels, { affine: true }),
  group: (channels) => new nn.GroupNorm(channels / 4, channels),
};
const batchSizes = [1, 4, 16, 64];
/** How many every training sees. */
const pictures = 12_800;
const learningRateFor = (batch) => 0.1 * (batch / 32);

/** Three convolutions with a norm after each, and a linear map of what they give on average. */
class Network extends nn.Module {
  constructor(norm, rng) {
    super();
    const widths = [1, 16, 32, 32];
    const convolution = (from, to, stride) => new nn.Conv2d(from, to, 3, { stride, padding: 1, bias: false }, rng);
    this.convs = [2, 2, 1].map((stride, i) => convolution(widths[i], widths[i + 1], stride));
    this.norms = widths.slice(1).map((channels) => norm(channels));
    this.head = new nn.Linear(32, training.classNames.length, rng);
  }
  forward(x) {
    const y = this.convs.reduce((y, conv, i) => this.norms[i].forward(conv.forward(y)).maximum(0), x);
    return this.head.forward(y.mean([2, 3]));
  }
}

/** Trains on `pictures` pictures, the learning rate falling to 0 in a straight line. @returns the error on test pictures. */
async function errorOf(norm, batch, seed) {
  const network = new Network(norms[norm], new Generator(seed));
  const parameters = network.namedParameters();
  const optimizer = sgd(parameters, { momentum: 0.9, weightDecay: 1e-4 });
  const update = compile((images, labels, learningRate) => {
    const loss = nn.inTraining(() => crossEntropy(network.forward(images), labels));
    optimizer.update(gradients(loss, [...parameters.values()]), [learningRate]);
    return loss;
  }, how);
  const steps = pictures / batch;
  let [step, last] = [0, 0];
  for await (const { images, labels } of batches(training, { batch, seed })) {
    const learningRate = learningRateFor(batch) * (1 - step / steps);
    const loss = await update(images, labels, ndarray([learningRate], []));
    if (step >= 0.9 * steps) last += loss.data[0] / (0.1 * steps);
    if (++step === steps) break;
  }
  await update.release();

  const judge = compile((images, labels) => network.forward(images).argmax(1).equal(labels.cast('int64')).cast('float32').sum(), how);
  let right = 0;
  for await (const { images, labels } of batches(heldOut, { batch: 100, shuffle: false, epochs: 1 }))
    right += (await judge(images, labels)).data[0];
  await judge.release();
  return { trainingLoss: last, error: 100 * (1 - right / heldOut.length) };
}

for (const seed of values.seeds.split(',').map(Number))
  for (const norm of Object.keys(norms).filter((name) => !values.only || name === values.only))
    for (const batch of batchSizes) await once({ norm, batch, seed }, () => errorOf(norm, batch, seed));

const errors = (norm, batch) => rows.filter((row) => row.norm === norm && row.batch === batch).map(({ error }) => error);
console.log(
  markdown([
    ['norm', ...batchSizes.map((batch) => `${batch}`)],
    ...Object.keys(norms).map((norm) => [norm, ...batchSizes.map((batch) => spread(errors(norm, batch), 1))]),
  ]),
);
if (picture)
  await saveCharts(
    picture,
    [
      {
        xTitle: 'batch size',
        yTitle: 'test error, %',
        xScale: 'log',
        xTicks: batchSizes,
        series: Object.keys(norms).map((norm) => ({
          name: norm,
          points: batchSizes.map((batch) => ({ x: batch, y: mean(errors(norm, batch)) })),
        })),
      },
    ],
    { columns: 1, width: 420, height: 240, legendTitle: 'norm' },
  );
