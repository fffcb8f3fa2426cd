import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { ndarray } from '../array/index.js';
import { openDataset } from '../data/node/index.js';
import { imageGrid } from '../io/index.js';
import { makeFolder, readJson, savePng } from '../io/node/index.js';
import type { ImageDistribution } from '../models/index.js';
import { loadImageDistribution } from '../models/node/index.js';
import { drawLabels, sampleAutoregressive } from '../pipelines/index.js';
import { Generator } from '../random/index.js';
import { autoregressiveTraining, binaryPictures } from '../training/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { gridScale } from './generate.js';
import { duration, type Output } from './output.js';
import { pictureNote } from './pictureNote.js';
import { Progress } from './progress.js';
import { fileName, number, parseClasses, wholeNumber } from './values.js';

interface Options extends ComputeOptions {
  readonly rows: number;
  readonly columns: number;
  readonly classes?: string;
  readonly complete?: true;
  readonly temperature: number;
  readonly seed: number;
  readonly out: string;
}

export function defineSampleAutoregressive(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'sample-autoregressive',
      summary: 'draw pictures with a run of train-autoregressive, or complete halves of test pictures',
      examples: [
        'sample-autoregressive runs/made --out grid.png',
        'sample-autoregressive runs/made --complete --rows 6',
        'sample-autoregressive runs/joint --classes 0,3,7',
      ],
    },
    (command) => {
      command
        .argument('<run>', 'folder of the run')
        .option('--rows <n>', 'rows of pictures, or test pictures to complete', wholeNumber('--rows'), 8)
        .option('--columns <n>', 'pictures of a row', wholeNumber('--columns'), 8)
        .option('--classes <list>', 'a row of each class, of a run with --labels: numbers or names, or all')
        .option('--complete', 'keep the upper half of test pictures; a row begins with the picture and its half')
        .option('--temperature <x>', 'divides the logits: below 1 plays safe', number('--temperature'), 1)
        .option('--seed <n>', 'of the draws', wholeNumber('--seed', 0), 0)
        .option('--out <file>', 'the grid', fileName('--out', '.png'), 'grid.png')
        .addOption(deviceFlag())
        .addOption(threadsFlag());
    },
    runSample,
  );
}

async function runSample(output: Output, options: Options, [run]: readonly string[]): Promise<ExitCode> {
  const { columns, temperature, seed, out, device, threads, complete = false } = options;
  if (!(temperature > 0)) throw new UsageError(`--temperature: expected a number above 0, got ${temperature}`);
  const distribution = await loadImageDistribution(join(run, 'distribution'));
  const { classes, imageShape } = distribution.config;
  if (options.classes !== undefined && complete)
    throw new UsageError('--classes and --complete do not go together; leave one out');
  if (options.classes !== undefined && classes === 0)
    throw new UsageError(`--classes: ${run} was trained without --labels and knows no classes`);
  const classNames = await readJson(join(run, 'distribution', 'classes.json'), z.array(z.string()));
  const labels = options.classes === undefined ? undefined : parseClasses(options.classes, classNames, classes);
  await makeFolder(dirname(out)); // not found out after minutes of sampling

  const rows = labels?.length ?? options.rows;
  const count = rows * columns;
  const size = imageShape[0] * imageShape[1] * imageShape[2];
  const whole = complete ? await testPictures(run, rows, seed) : undefined;
  const known = new Float32Array(count * size).fill(-1);
  if (whole)
    for (let n = 0; n < count; n++) {
      const from = Math.floor(n / columns) * size;
      known.set(upperHalf(whole.subarray(from, from + size), distribution, -1), n * size);
    }
  const began = performance.now();
  const progress = new Progress(output, { label: 'sampling', total: distribution.model.order.length });
  const compile = { device, threads };
  const rng = new Generator(seed);
  const open = ndarray(known, [count, ...imageShape]);
  const asked = labels?.flatMap((label) => Array.from({ length: columns }, () => label));
  const drawn = await sampleAutoregressive({
    model: distribution.model,
    given: distribution.known(
      open,
      asked ?? (whole && classes > 0 ? await drawLabels(distribution, open, rng, compile) : undefined),
    ),
    temperature,
    seed: rng,
    compile,
    onStep: (done) => progress.update(done),
  }).finally(() => progress.stop());
  const seconds = (performance.now() - began) / 1000;

  const { data } = distribution.pictures(drawn);
  const shown: Float32Array[] = [];
  for (let row = 0; row < rows; row++) {
    const picture = whole?.subarray(row * size, (row + 1) * size);
    if (picture) shown.push(picture, upperHalf(picture, distribution, 0.5));
    shown.push(data.subarray(row * columns * size, (row + 1) * columns * size));
  }
  const width = columns + (whole ? 2 : 0);
  const all = new Float32Array(rows * width * size);
  let at = 0;
  for (const part of shown) {
    all.set(
      part.map((x) => 2 * x - 1),
      at,
    );
    at += part.length;
  }
  const settings = { model: run, classes: options.classes, complete, temperature, seed };
  const scale = Math.max(1, gridScale(imageShape[1]));
  const rowLabels = labels?.map((label) => classNames[label] ?? String(label));
  const raster = imageGrid(ndarray(all, [rows * width, ...imageShape]), width, { rowLabels, scale });
  await savePng(out, raster, pictureNote(settings));
  output.line(`${count} pictures ${complete ? 'completed' : 'drawn'} in ${duration(seconds)} (seed ${seed})`);
  output.line(`grid:       ${out}`);
  output.record({ kind: 'samples', ...settings, labels, rows, columns, seconds, files: { grid: out } });
  return exitCodes.ok;
}

/** Test pictures of the run's data set, chosen by the seed; training pictures where there are no others. */
async function testPictures(run: string, count: number, seed: number): Promise<Float32Array> {
  const { data, size, skipCorrupt } = await readJson(join(run, 'run.json'), autoregressiveTraining);
  const open = (split: 'train' | 'test') => openDataset(data, { size, skipCorrupt, split });
  const dataset = await open('test').catch(() => open('train'));
  const rng = new Generator(seed);
  const indices = rng.randperm(dataset.length).slice(0, count);
  if (indices.length < count) throw new UsageError(`--rows: there are only ${dataset.length} pictures in ${data}`);
  return (await binaryPictures(dataset, indices, rng)).images.data;
}

/** A picture whose lower half is `rest`. */
function upperHalf(picture: Float32Array, { config }: ImageDistribution, rest: number): Float32Array {
  const [, height, width] = config.imageShape;
  return picture.map((x, i) => (Math.floor(i / width) % height < height / 2 ? x : rest));
}
