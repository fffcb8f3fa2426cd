import type { Command } from 'commander';
import { type NdArray, ndarray } from '../array/index.js';
import { readBatch } from '../data/index.js';
import { openDataset } from '../data/node/index.js';
import { imageGrid } from '../io/index.js';
import { readImage, savePng } from '../io/node/index.js';
import { interpolateImages } from '../pipelines/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { gridScale, joined } from './generate.js';
import { ofPixels } from './openPipeline.js';
import { duration, type Output } from './output.js';
import { shippedCheckpoint } from './package.js';
import { pictureNote } from './pictureNote.js';
import { Progress } from './progress.js';
import { fileName, parseClasses, parseGuidance, wholeNumber } from './values.js';

interface Options extends ComputeOptions {
  readonly steps: number;
  readonly count: number;
  readonly classes?: string;
  readonly guidance: string;
  readonly out: string;
}

export function defineInterpolate(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'interpolate',
      summary: 'make pictures on the way from one to another, through the noise that leads to each',
      examples: [
        'interpolate boot.png sneaker.png --out strip.png',
        'interpolate fashion-mnist:0 fashion-mnist:1 --classes "ankle boot,pullover" --steps 200',
      ],
    },
    (command) => {
      command
        .argument('<from>', 'a picture file; or a data set and a number, like fashion-mnist:7, of its test split')
        .argument('<to>', 'the same')
        .argument('[run]', "folder of a run, or any class-conditional pipeline in diffusers' layout")
        .option('--steps <n>', 'steps to the noise, and as many back', wholeNumber('--steps'), 200)
        .option('--count <n>', 'pictures on the way, both ends included', wholeNumber('--count', 2), 9)
        .option('--classes <list>', 'of both pictures, by number or name; default: none')
        .option('--guidance <scale>', 'on the way back, as for sample; away from 1 the ends change, too', 'none')
        .option(
          '--out <file>',
          'the strip: both pictures, and between them what was made',
          fileName('--out', '.png'),
          'interpolation.png',
        )
        .addOption(deviceFlag())
        .addOption(threadsFlag());
    },
    interpolate,
  );
}

async function interpolate(
  output: Output,
  options: Options,
  [from, to, run = shippedCheckpoint]: readonly string[],
): Promise<ExitCode> {
  const { steps, count, device, threads, out } = options;
  const guidance = parseGuidance(options.guidance);
  const { model, sampler, classNames } = ofPixels(await ClassConditionalPipeline.fromPretrained(run), 'interpolate');
  const classes = options.classes ? parseClasses(options.classes, classNames, model.nullClass ?? 0) : undefined;
  if (classes && classes.length !== 2)
    throw new UsageError(`--classes: expected one for each of the 2 pictures, got ${classes.length}`);
  const size = model.sampleSize;
  const shape = [model.inChannels === 1 ? 1 : 3, size, size] as const;
  const images = joined([await pictureOf(from, { shape, size }), await pictureOf(to, { shape, size })]);

  const began = performance.now();
  const progress = new Progress(output, { label: 'interpolating', total: 2 * steps });
  const made = await interpolateImages({
    model,
    sampler,
    images,
    classes,
    steps,
    count,
    guidance,
    compile: { device, threads },
    onStep: (done) => progress.update(done),
  }).finally(() => progress.stop());
  const seconds = (performance.now() - began) / 1000;

  const [first, second] = [0, 1].map((i) => part(images, i));
  const shares = Array.from({ length: count }, (_, i) => (i / (count - 1)).toFixed(2).replace(/^0\./, '.'));
  const strip = imageGrid(joined([first, made, second]), count + 2, {
    columnLabels: ['from', ...shares, 'to'],
    scale: gridScale(model.sampleSize),
  });
  const error = [rootMeanSquare(first, part(made, 0)), rootMeanSquare(second, part(made, count - 1))];
  const settings = { model: run, from, to, classes: options.classes, guidance: options.guidance, steps };
  await savePng(out, strip, pictureNote(settings));
  output.line(
    `${count} pictures in ${duration(seconds)}; both ends came back to within ${error.map(round).join(' and ')}`,
  );
  output.line(`strip: ${out}`);
  output.record({ kind: 'interpolation', ...settings, count, seconds, error, files: { strip: out } });
  return exitCodes.ok;
}

/**
 * A picture as a model takes it, [1, C, H, W] in [-1, 1].
 * @param source a file, or a data set and a number of its test split, like mnist:7. @param format `size`: scale it.
 * @throws UsageError for a number out of range, RangeError for pictures of another shape.
 */
export async function pictureOf(
  source: string,
  { shape, size }: { readonly shape: readonly [number, number, number]; readonly size?: number },
): Promise<NdArray<'float32'>> {
  const checked = (image: NdArray<'float32'>) => {
    if (`${image.shape.slice(1)}` === `${shape}`) return image;
    throw new RangeError(`${source}: a picture of ${image.shape.slice(1).join('x')}, expected ${shape.join('x')}`);
  };
  const [, name, index] = /^([\w-]+):(\d+)$/.exec(source) ?? [];
  if (name === undefined) {
    const image = await readImage(source, { size, channels: shape[0] === 1 ? 1 : 3 });
    return checked(ndarray(image.data, [1, ...image.shape]));
  }
  const data = await openDataset(name, { split: 'test', size });
  if (Number(index) >= data.length)
    throw new UsageError(`${source}: ${name} has pictures 0..${data.length - 1} in its test split`);
  return checked((await readBatch(data, Int32Array.of(Number(index)))).images);
}

const part = ({ data, shape: [count, ...shape] }: NdArray<'float32'>, n: number): NdArray<'float32'> =>
  ndarray(data.slice((n * data.length) / count, ((n + 1) * data.length) / count), [1, ...shape]);

/** Of the difference, in values of -1..1. */
const rootMeanSquare = (a: NdArray<'float32'>, b: NdArray<'float32'>): number =>
  Math.sqrt(a.data.reduce((sum, x, i) => sum + (x - b.data[i]) ** 2, 0) / a.data.length);

const round = (x: number): string => x.toFixed(3);
