import { type Command, Option } from 'commander';
import { readBatch } from '../data/index.js';
import { openDataset } from '../data/node/index.js';
import { subVpSde, veSde, vpSde } from '../diffusion/index.js';
import { likelihood } from '../pipelines/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { ofPixels } from './openPipeline.js';
import { duration, type Output } from './output.js';
import { shippedCheckpoint } from './package.js';
import { Progress } from './progress.js';
import { number, wholeNumber } from './values.js';

const sdes = { vp: vpSde, subvp: subVpSde, ve: veSde };

interface Options extends ComputeOptions {
  readonly data: string;
  readonly split: 'train' | 'test';
  readonly images: number;
  readonly unconditional?: true;
  readonly sde: keyof typeof sdes;
  readonly tolerance: number;
  readonly probes: number;
  readonly from: number;
  readonly seed: number;
}

export function defineLikelihood(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'likelihood',
      summary: 'measure how many bits per dimension a run needs for real pictures',
      examples: ['likelihood --images 16', 'likelihood runs/a --data my-icons --unconditional --probes 4'],
    },
    (command) => {
      command
        .argument('[run]', "folder of a run, or any class-conditional pipeline in diffusers' layout")
        .option('--data <name>', 'data set of the pictures', 'fashion-mnist')
        .addOption(new Option('--split <name>', 'of the data set').choices(['train', 'test']).default('test'))
        .option('--images <n>', 'how many, from the first on', wholeNumber('--images'), 16)
        .option('--unconditional', 'p(x) rather than p(x | class)')
        .addOption(
          new Option('--sde <name>', 'whose probability-flow ODE is solved').choices(Object.keys(sdes)).default('vp'),
        )
        .option('--tolerance <x>', "of the solver's steps", number('--tolerance'), 1e-4)
        .option('--probes <n>', 'estimates to average over', wholeNumber('--probes'), 1)
        .option('--from <t>', 'time at which the flow begins', number('--from'), 1e-3)
        .option(
          '--seed <n>',
          'of the probes, and of what fills the gaps between 256 levels',
          wholeNumber('--seed', 0),
          0,
        )
        .addOption(deviceFlag())
        .addOption(threadsFlag());
    },
    measure,
  );
}

async function measure(
  output: Output,
  options: Options,
  [run = shippedCheckpoint]: readonly string[],
): Promise<ExitCode> {
  const { data: name, split, sde, tolerance, probes, from, seed, device, threads } = options;
  if (!(tolerance > 0)) throw new UsageError(`--tolerance: expected a number above 0, got ${tolerance}`);
  if (!(from > 0 && from < 1)) throw new UsageError(`--from: expected a number between 0 and 1, got ${from}`);
  const { model, sampler } = ofPixels(await ClassConditionalPipeline.fromPretrained(run), 'likelihood');
  const data = await openDataset(name, { split, size: model.sampleSize });
  const count = Math.min(options.images, data.length);
  const { images, labels } = await readBatch(
    data,
    Int32Array.from({ length: count }, (_, i) => i),
  );
  const none = model.nullClass ?? 0;

  const began = performance.now();
  const progress = new Progress(output, { label: 'integrating', total: 100 });
  const { bitsPerDimension: bits, evaluations } = await likelihood({
    model,
    sampler,
    images,
    classes: options.unconditional ? Array.from({ length: count }, () => none) : Array.from(labels.data, Number),
    sde: sdes[sde](),
    rtol: tolerance,
    atol: tolerance,
    probes,
    from,
    seed,
    compile: { device, threads },
    onStep: ({ t }) => progress.update(100 * t),
  }).finally(() => progress.stop());
  const seconds = (performance.now() - began) / 1000;

  const mean = bits.reduce((sum, x) => sum + x, 0) / count;
  const deviation = Math.sqrt(bits.reduce((sum, x) => sum + (x - mean) ** 2, 0) / Math.max(1, count - 1));
  const error = deviation / Math.sqrt(count);
  const settings = { model: run, data: data.name, split, images: count, sde, tolerance, probes, from, seed };
  output.line(
    `${mean.toFixed(3)} ± ${error.toFixed(3)} bits per dimension over ${count} pictures of ${data.name} (${split})`,
  );
  output.line(
    `${sde}, from t = ${from}, tolerance ${tolerance}: ${evaluations} calls of the model in ${duration(seconds)}`,
  );
  output.record({ kind: 'likelihood', ...settings, mean, standardError: error, bits: [...bits], evaluations, seconds });
  return exitCodes.ok;
}
