import { join } from 'node:path';
import type { Command } from 'commander';
import { EncoderUNet, trainableClass } from '../models/index.js';
import { type RunEvent, TrainingRun } from '../training/node/index.js';
import { addCommand, type Cli } from './command.js';
import type { ExitCode } from './exitCodes.js';
import { addOtherOptions, otherModels, otherTrainer } from './otherTrainers.js';
import { type Output, shellWord } from './output.js';
import { savePreview } from './preview.js';
import { addFolderFlags, describeRun, type RunOptions } from './runFlags.js';
import { addTrainOptions, givenTrainFields, trainConfigOf } from './trainFlags.js';
import { openRun, trainLoop } from './trainLoop.js';

export function defineTrain(program: Command, cli: Cli): void {
  addCommand<RunOptions>(
    program,
    cli,
    {
      name: 'train',
      summary: 'train a class-conditional model, a classifier to guide with, a flow or an autoregressive model',
      examples: [
        'train --model dit --preset xs --data fashion-mnist --steps 2000 --out runs/a',
        'train --model unet --preset s --data photos/ --size 32 --predict v --out runs/b',
        'train --model dit --predict flow --data photos/ --size 64 --vae runs/vae --out runs/latent   # latents, as SiT',
        'train --model noisy-classifier --data fashion-mnist --out runs/clf   # to guide sample with',
        'train --model glow --data mnist --steps 3000 --out runs/glow          # then sample-flow',
        'train --resume runs/a --steps 4000      # --steps is the total; all else comes from the run',
      ],
    },
    (command) => {
      addFolderFlags(command);
      addTrainOptions(command, otherModels);
      addOtherOptions(command);
    },
    train,
  );
}

async function train(output: Output, options: RunOptions): Promise<ExitCode> {
  const other = await otherTrainer(options);
  if (other) return other(output, options);
  const run = await openedRun(options);
  const { config, dataset, folder } = run;
  const { name } = trainableClass(config.model);
  describeRun(output, name, run.model, dataset, ` in ${dataset.classNames.length} classes`);
  if (run.vae) output.line('their latents are drawn first, which takes a while where there are many');
  const guidance =
    run.model instanceof EncoderUNet
      ? `--guidance classifier=2 --classifier ${shellWord(folder)}`
      : `${shellWord(folder)} --classes all --guidance 3`;
  return trainLoop<RunEvent>(output, run, {
    command: 'train',
    show: `sample ${guidance}`,
    async onEvent(event, progress, signal) {
      if (event.kind === 'accuracy') return progress.log(accuracyLine(event));
      if (signal.aborted) return;
      const path = join(folder, 'samples', `step-${String(event.step).padStart(7, '0')}.png`);
      await savePreview(run, path, signal).then(
        () => progress.log(`saved ${path}`),
        (error) => {
          if (!signal.aborted) throw error; // Ctrl-C: the run goes on to save
        },
      );
    },
  });
}

/** How a classifier of noisy pictures does from clean to noise. */
function accuracyLine({ split, accuracy, accuracyByTimestep }: Extract<RunEvent, { kind: 'accuracy' }>): string {
  const shares = [accuracy, ...accuracyByTimestep].map((share) => `${Math.round(100 * share)}%`);
  return `right about noisy ${split} pictures: ${shares[0]}; by tenths of the timesteps ${shares.slice(1).join(' ')}`;
}

const openedRun = ({ out, resume, ...options }: RunOptions): Promise<TrainingRun> =>
  openRun({ out, resume }, givenTrainFields(options), {
    create: (folder) => TrainingRun.create(trainConfigOf(options), folder),
    resume: (folder, changes) => TrainingRun.resume(folder, changes),
  });
