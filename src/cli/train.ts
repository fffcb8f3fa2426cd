import { join } from 'node:path';
import type { Command } from 'commander';
import { EncoderUNet, trainableClass } from '../models/index.js';
import { type RunEvent, TrainingRun } from '../training/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { interruptible } from './interrupt.js';
import { duration, figure, type Output, shellWord } from './output.js';
import { savePreview } from './preview.js';
import { Progress } from './progress.js';
import { self } from './self.js';
import { addTrainOptions, flagName, givenTrainFields, trainConfigOf } from './trainFlags.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly out?: string;
  readonly resume?: string;
  readonly steps?: readonly number[];
}

export function defineTrain(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'train',
      summary: 'train a class-conditional model or a classifier to guide with, or continue a run',
      examples: [
        'train --model dit --preset xs --data fashion-mnist --steps 2000 --out runs/a',
        'train --model unet --preset s --data photos/ --size 32 --predict v --out runs/b',
        'train --model noisy-classifier --data fashion-mnist --out runs/clf   # to guide sample with',
        'train --resume runs/a --steps 4000      # --steps is the total; all else comes from the run',
      ],
    },
    (command) => {
      command
        .option('--out <dir>', 'folder of the new run')
        .option('--resume <dir>', 'continue the run in this folder');
      addTrainOptions(command);
    },
    train,
  );
}

async function train(output: Output, options: Options): Promise<ExitCode> {
  const run = await openRun(options);
  const { config, session, dataset, folder } = run;
  const { name } = trainableClass(config.model);
  output.line(
    `${name}, ${figure(run.model.parameterCount() / 1e6)} million parameters; ${dataset.name}: ${dataset.length} pictures of ${dataset.shape.join('x')} in ${dataset.classNames.length} classes`,
  );
  const { skipped = [] } = dataset;
  for (const reason of skipped.slice(0, 10)) output.line(`left out: ${reason}`);
  if (skipped.length > 10) output.line(`left out: ${skipped.length - 10} more`);
  if (session.step >= config.steps) {
    output.line(`${folder} has all its ${config.steps} steps; continue it with --steps N, N larger than that`);
    output.record({ kind: 'done', step: session.step, folder });
    return exitCodes.ok;
  }
  if (session.step > 0) output.line(`continuing after step ${session.step}`);

  const progress = new Progress(output, { label: 'training', total: config.steps, done: session.step });
  const onInterrupt = () => progress.log('interrupted: finishing the step and saving; Ctrl-C again leaves at once');
  const began = performance.now();
  const interrupted = await interruptible(async (signal) => {
    try {
      for await (const event of run.run(signal)) {
        if (event.kind === 'step') progress.update(event.step, event);
        if (event.kind === 'checkpoint') progress.log(`saved ${event.path}`);
        if (event.kind === 'accuracy') progress.log(accuracyLine(event));
        if (event.kind !== 'step' || event.step % config.logEvery === 0) output.record(event);
        if (event.kind === 'preview' && !signal.aborted) {
          const path = join(folder, 'samples', `step-${String(event.step).padStart(7, '0')}.png`);
          await savePreview(run, path, signal).then(
            () => progress.log(`saved ${path}`),
            (error) => {
              if (!signal.aborted) throw error; // Ctrl-C: the run goes on to save
            },
          );
        }
      }
    } finally {
      progress.stop();
      await run.release();
    }
    return signal.aborted;
  }, onInterrupt);

  if (interrupted) {
    const resume = `${self()} train --resume ${shellWord(folder)}`;
    output.line(`stopped after step ${session.step}; continue with:\n  ${resume}`);
    output.record({ kind: 'interrupted', step: session.step, resume });
    return exitCodes.interrupted;
  }
  output.line(`done: step ${session.step}, ${duration((performance.now() - began) / 1000)}. Look at it with:`);
  const guidance =
    run.model instanceof EncoderUNet
      ? `--guidance classifier=2 --classifier ${shellWord(folder)}`
      : `${shellWord(folder)} --classes all --guidance 3`;
  output.line(`  ${self()} sample ${guidance}`);
  output.record({ kind: 'done', step: session.step, folder });
  return exitCodes.ok;
}

/** How a classifier of noisy pictures does from clean to noise. */
function accuracyLine({ split, accuracy, accuracyByTimestep }: Extract<RunEvent, { kind: 'accuracy' }>): string {
  const shares = [accuracy, ...accuracyByTimestep].map((share) => `${Math.round(100 * share)}%`);
  return `right about noisy ${split} pictures: ${shares[0]}; by tenths of the timesteps ${shares.slice(1).join(' ')}`;
}

async function openRun({ out, resume, ...options }: Options): Promise<TrainingRun> {
  if (resume === undefined) {
    if (out === undefined) throw new UsageError('--out is missing: the folder of the new run, such as runs/a');
    return TrainingRun.create(trainConfigOf(options), out);
  }
  const { steps, ...others } = givenTrainFields(options);
  const odd = out === undefined ? Object.keys(others)[0] : 'out';
  if (odd) throw new UsageError(`--resume takes everything but --steps from the run; leave out ${flagName(odd)}`);
  if (steps !== undefined && !(Number.isInteger(steps) && (steps as number) > 0))
    throw new UsageError(`--steps: expected a whole number of at least 1, got ${steps}`);
  return TrainingRun.resume(resume, steps === undefined ? {} : { steps: steps as number });
}
