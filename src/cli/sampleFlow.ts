import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { imageGrid } from '../io/index.js';
import { makeFolder, savePng } from '../io/node/index.js';
import { flowInput, flowPictures, type ImageFlow, interpolateFlow, sampleFlow } from '../pipelines/index.js';
import { loadImageFlow } from '../pipelines/node/index.js';
import { Generator } from '../random/index.js';
import type { CompileOptions } from '../tensor/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { gridScale, joined } from './generate.js';
import { pictureOf } from './interpolate.js';
import { interruptible } from './interrupt.js';
import { duration, type Output } from './output.js';
import { pictureNote } from './pictureNote.js';
import { fileName, number, wholeNumber } from './values.js';

interface Options extends ComputeOptions {
  readonly temperature: readonly number[];
  readonly rows: number;
  readonly columns: number;
  readonly interpolate?: readonly string[];
  readonly solverSteps?: number;
  readonly seed: number;
  readonly out: string;
}

export function defineSampleFlow(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'sample-flow',
      summary: 'draw pictures with a flow that train made, or pictures on the way between two',
      examples: [
        'sample-flow runs/glow --temperature 0.5,0.7,1 --out grid.png',
        'sample-flow runs/glow --interpolate mnist:7 mnist:9 mnist:2 mnist:1 --out way.png',
      ],
    },
    (command) => {
      command
        .argument('<run>', 'folder of the run')
        .option(
          '--temperature <list>',
          "the latents' spread, a row (or --rows) for each: below 1 likelier and less varied",
          (text) => text.split(',').map(number('--temperature')),
          [1],
        )
        .option('--rows <n>', 'rows of each temperature', wholeNumber('--rows'), 1)
        .option('--columns <n>', 'pictures of a row', wholeNumber('--columns', 2), 10)
        .option(
          '--interpolate <pictures...>',
          'instead: the way between the latents of two pictures, a row for each two; files, or like mnist:7 of its test split',
        )
        .option(
          '--solver-steps <n>',
          "of ffjord, in place of the run's: more invert better",
          wholeNumber('--solver-steps'),
        )
        .option('--seed <n>', 'of the draws', wholeNumber('--seed', 0), 0)
        .option('--out <file>', 'the grid', fileName('--out', '.png'), 'grid.png')
        .addOption(deviceFlag())
        .addOption(threadsFlag());
    },
    runSample,
  );
}

async function runSample(output: Output, options: Options, [run]: readonly string[]): Promise<ExitCode> {
  const { temperature: temperatures, rows, columns, seed, out, device, threads, interpolate: ends } = options;
  const odd = temperatures.find((t) => !(t >= 0 && t < Number.POSITIVE_INFINITY));
  if (odd !== undefined) throw new UsageError(`--temperature: expected numbers from 0 on, got ${odd}`);
  if (ends && ends.length % 2)
    throw new UsageError(`--interpolate: expected two pictures for a row, got ${ends.length}`);
  const flow = await loadImageFlow(join(run, 'flow'), options.solverSteps);
  await makeFolder(dirname(out)); // not found out after minutes of sampling
  const began = performance.now();
  const compile = { device, threads };
  const { images, labels } = await interruptible(async (signal) =>
    ends
      ? { images: await ways(flow, ends, { columns, seed, compile, signal }), labels: undefined }
      : {
          images: joined(
            await inTurn(temperatures, (temperature) =>
              sampleFlow({ model: flow.model, count: rows * columns, temperature, seed, compile, signal }),
            ),
          ),
          labels: temperatures.flatMap((t) => Array.from({ length: rows }, (_, row) => (row === 0 ? `T ${t}` : ''))),
        },
  );
  const seconds = (performance.now() - began) / 1000;
  if (!images.data.every(Number.isFinite))
    throw new Error(`${run}: the flow gave numbers that are not finite; train it longer, or lower --temperature`);

  const settings = { model: run, temperatures, interpolate: ends, seed };
  const scale = gridScale(flow.config.imageShape[1]);
  const raster = imageGrid(flowPictures(images), columns, { rowLabels: labels, scale });
  await savePng(out, raster, pictureNote(settings));
  output.line(`${images.shape[0]} pictures in ${duration(seconds)} (seed ${seed})`);
  output.line(`grid:       ${out}`);
  output.record({ kind: 'samples', ...settings, columns, seconds, files: { grid: out } });
  return exitCodes.ok;
}

/** A row for each two pictures: both come back at its ends. */
async function ways(
  flow: ImageFlow,
  ends: readonly string[],
  { columns, seed, compile, signal }: { columns: number; seed: number; compile: CompileOptions; signal: AbortSignal },
) {
  const rng = new Generator(seed);
  const shape = flow.config.imageShape;
  const format = { shape, size: shape[1] === shape[2] ? shape[1] : undefined };
  const pictures = await inTurn(ends, async (source) => flowInput(await pictureOf(source, format), rng));
  const pairs = Array.from({ length: ends.length / 2 }, (_, i) => joined(pictures.slice(2 * i, 2 * i + 2)));
  return joined(
    await inTurn(pairs, (pair) => interpolateFlow({ model: flow.model, ends: pair, count: columns, compile, signal })),
  );
}

async function inTurn<T, R>(list: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const done: R[] = [];
  for (const item of list) done.push(await work(item));
  return done;
}
