// The DiT paper's comparison of block designs in miniature:
//   node docs/scripts/conditioning.mjs runs/conditioning.jsonl docs/images/conditioning.png
// Stopped, it goes on where it was; --seeds 0 and --only adaln do a part.
import { parseArgs } from 'node:util';
import {
  classify,
  conditionings,
  flowMatchEuler,
  imageGrid,
  imageQuality,
  ndarray,
  readBatch,
  sampleImages,
} from 'noisewright';
import { loadClassifier, savePng } from 'noisewright/node';
import { compile, markdown, notebook, spread, train, training } from './comparison.mjs';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, seeds: { type: 'string', default: '0,1,2' } },
});
const [path, picture] = positionals;
const { rows, once } = notebook(path);
const steps = 1000;
const settings = {
  model: 'dit-variant',
  predict: 'flow',
  steps,
  batch: 16,
  learningRate: 2e-3,
  warmup: 100,
};
const size = { hiddenSize: 64, depth: 4, numHeads: 2, patchSize: 4 };

const classifier = await loadClassifier('assets/fashion-mnist-classifier');
const classes = training.classNames.length;
const chunk = 250;
async function* realPictures() {
  for (let at = 0; at < 10_000; at += chunk)
    yield (await readBatch(training, Int32Array.from({ length: chunk }, (_, i) => at + i))).images;
}
let reference;

/** FID, accuracy and one picture of each class, of 500 samples without guidance. */
async function judged(model) {
  reference ??= (await classify(classifier, realPictures(), compile)).features;
  const labels = Array.from({ length: chunk }, (_, i) => i % classes);
  const options = { model, classes: labels, sampler: flowMatchEuler(), plan: { steps: 16 }, compile };
  const parts = [];
  for (let seed = 0; seed < 2; seed++) parts.push(await sampleImages({ ...options, seed }));
  const all = parts.flatMap(() => labels);
  const { fid, accuracy } = imageQuality(reference, await classify(classifier, parts, compile), all);
  const bytes = Uint8Array.from(parts[0].data.subarray(0, classes * 784), (x) => Math.min(255, Math.max(0, 127.5 * x + 127.5)));
  return { fid, accuracy, pictures: Buffer.from(bytes).toString('base64') };
}

for (const seed of values.seeds.split(',').map(Number))
  for (const conditioning of conditionings.filter((name) => !values.only || name === values.only))
    await once({ conditioning, seed }, async () => {
      let row;
      const curve = {};
      await train({ ...settings, modelConfig: { ...size, conditioning }, seed }, async (run) => {
        if (run.step % 500 === 0) curve[run.step] = await run.lossOf(1000);
        if (run.step < steps) return false;
        const quality = await judged(await run.averaged());
        row = { parameters: run.parameters, seconds: run.seconds, loss: curve[steps], curve, ...quality };
        return true;
      });
      return row;
    });

const table = conditionings.map((name) => rows.filter(({ conditioning }) => conditioning === name)).filter((own) => own.length > 0);
console.log(
  markdown([
    ['conditioning', 'parameters', 'held-out loss', 'FID', 'class as asked'],
    ...table.map((own) => [
      own[0].conditioning,
      own[0].parameters.toLocaleString('en'),
      spread(own.map(({ loss }) => loss), 4),
      spread(own.map(({ fid }) => fid), 2),
      `${spread(own.map(({ accuracy }) => 100 * accuracy), 1)} %`,
    ]),
  ]),
);
if (picture) {
  const bytes = table.flatMap(([{ pictures }]) => [...Buffer.from(pictures, 'base64')]);
  const images = ndarray(Float32Array.from(bytes, (x) => x / 127.5 - 1), [bytes.length / 784, 1, 28, 28]);
  await savePng(picture, imageGrid(images, classes, { scale: 2, rowLabels: table.map(([{ conditioning }]) => conditioning) }));
}
