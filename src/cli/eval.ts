import { type Command, Option } from 'commander';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import type { ImageQuality } from '../training/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { evaluateFlow } from './evalFlow.js';
import { type ExitCode, exitCodes } from './exitCodes.js';
import { generate } from './generate.js';
import { interruptible } from './interrupt.js';
import { openJudge } from './judge.js';
import { openGuider } from './openGuider.js';
import { samplerFor } from './openPipeline.js';
import { kindOfRun } from './otherTrainers.js';
import { figure, type Output, table } from './output.js';
import { shippedCheckpoint, shippedClassifier } from './package.js';
import { Progress } from './progress.js';
import { type SamplerName, samplerNameOf, samplerNames, wholeNumber } from './values.js';

interface Options extends ComputeOptions {
  readonly samples: number;
  readonly guidance: string;
  readonly weaker?: string;
  readonly noisyClassifier?: string;
  readonly sampler?: SamplerName;
  readonly steps: number;
  readonly batch: number;
  readonly seed: number;
  readonly data?: string;
  readonly classifier: string;
  readonly solverSteps?: number;
}

export function defineEval(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'eval',
      summary: 'judge a run: FID, KID, precision, recall and accuracy of its pictures; of a flow, bits per dimension',
      examples: [
        'eval runs/a --samples 1000',
        'eval --samples 5000 --guidance 1.5 --sampler dpmpp-2m --steps 20 --json',
        'eval runs/glow --samples 10000        # a flow: test pictures, and how well it inverts',
      ],
    },
    (command) => {
      command
        .argument('[run]', 'folder of a run; default: the checkpoint that comes with noisewright')
        .option('--samples <n>', 'pictures to make, spread over all classes', wholeNumber('--samples', 10), 5000)
        .option('--guidance <scale>', 'as in sample', '3')
        .option('--weaker <run>', 'as in sample')
        .option('--noisy-classifier <run>', "sample's --classifier, for the guider classifier")
        .addOption(
          new Option('--sampler <name>', 'default: the one that fits what the model predicts').choices(samplerNames),
        )
        .option('--steps <n>', 'steps of the sampler', wholeNumber('--steps'), 30)
        .option('--batch <n>', 'pictures made at a time', wholeNumber('--batch'), 128)
        .option('--solver-steps <n>', "of ffjord, in place of the run's", wholeNumber('--solver-steps'))
        .option('--seed <n>', 'of the noise', wholeNumber('--seed', 0), 0)
        .option('--data <data>', 'real pictures; default: what the run was trained on')
        .option(
          '--classifier <dir>',
          'whose features and classes count; it is the measure, so compare figures of one only',
          shippedClassifier,
        )
        .addOption(deviceFlag())
        .addOption(threadsFlag())
        .addHelpText(
          'after',
          '\nThe figures of real pictures that were not trained on stand beside: no model can be expected to do better.\nDistances are to the training pictures.',
        );
    },
    evaluate,
  );
}

async function evaluate(
  output: Output,
  options: Options,
  [run = shippedCheckpoint]: readonly string[],
): Promise<ExitCode> {
  if ((await kindOfRun(run)) === 'flow') return evaluateFlow(output, options, run);
  const { samples, steps, seed, batch } = options;
  const compile = { device: options.device, threads: options.threads };
  const pipeline = await ClassConditionalPipeline.fromPretrained(run);
  const sampler = samplerFor(pipeline, steps, options.sampler);
  const runs = { weaker: options.weaker, classifier: options.noisyClassifier };
  const guidance = await openGuider(options.guidance, pipeline, sampler, runs);
  const judge = await openJudge({ ...options, run, pipeline, compile });
  const labels = Array.from({ length: samples }, (_, i) => i % judge.classes);
  const progress = new Progress(output, { label: 'sampling', total: samples });
  const { images } = await interruptible((signal) =>
    generate({
      pipeline,
      classes: labels,
      guidance,
      sampler,
      steps,
      seed,
      batch,
      compile,
      signal,
      onStep: (done, total) => progress.update(Math.floor((done / total) * samples)),
    }),
  ).finally(() => progress.stop());

  output.line('comparing with real pictures');
  const generated = await judge.quality(images, labels);
  const real = await judge.real();
  report(output, generated, real?.quality, real?.count);
  const settings = {
    run,
    samples,
    guidance: options.guidance,
    sampler: samplerNameOf(sampler),
    steps,
    seed,
    data: judge.data,
  };
  output.record({ kind: 'evaluation', ...settings, generated, real: real?.quality ?? null });
  return exitCodes.ok;
}

function report(output: Output, generated: ImageQuality, real: ImageQuality | undefined, realCount?: number): void {
  const share = (x: number) => `${(100 * x).toFixed(1)}%`;
  const rows: [string, keyof ImageQuality, (x: number) => string][] = [
    ['FID', 'fid', figure],
    ['KID', 'kid', (x) => x.toFixed(5)],
    ['precision', 'precision', share],
    ['recall', 'recall', share],
    ['accuracy', 'accuracy', share],
  ];
  const heading = ['', 'samples', ...(real ? [`${realCount} real test pictures`] : [])];
  const body = rows.map(([name, key, show]) => [name, show(generated[key]), ...(real ? [show(real[key])] : [])]);
  for (const line of table([heading, ...body])) output.line(line);
}
