import type { Command } from 'commander';
import { autoregressiveArchitectures, autoregressiveNames } from '../models/index.js';
import { autoregressiveTraining } from '../training/index.js';
import { type AutoregressiveEvent, AutoregressiveRun } from '../training/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import { type Output, shellWord } from './output.js';
import {
  addFolderFlags,
  addPresetFlags,
  describeRun,
  learningFlags,
  pictureFlags,
  presetConfig,
  type RunOptions,
} from './runFlags.js';
import { type FlagGroups, SchemaFlags } from './schemaFlags.js';
import { openRun, trainLoop } from './trainLoop.js';

const groups: FlagGroups = [
  [
    'Data:',
    {
      data: 'mnist, or a data set or folder as train takes it; made black and white by chance, anew each time',
      ...pictureFlags,
      testImages: 'test pictures whose likelihood is measured at each checkpoint; 0 for none',
    },
  ],
  ['Model:', { model: 'architecture', labels: 'model pictures and classes together: p(x, y)' }],
  ...learningFlags,
];
/** The settings of an autoregressive model's run. */
export const autoregressiveFlags = new SchemaFlags(autoregressiveTraining);

export function defineTrainAutoregressive(program: Command, cli: Cli): void {
  addCommand<RunOptions>(
    program,
    cli,
    {
      name: 'train-autoregressive',
      summary: 'train a model of binary pictures with an exact likelihood: FVBN, NADE, MADE, PixelCNN',
      examples: [
        'train-autoregressive --model made --data mnist --steps 3000 --out runs/made',
        'train-autoregressive --model gated-pixelcnn --data mnist --steps 1000 --out runs/pixels',
        'train-autoregressive --model made --data mnist --labels --out runs/joint    # draws classes, and classifies',
        'train-autoregressive --resume runs/made --steps 6000',
      ],
    },
    (command) => {
      addFolderFlags(command);
      addPresetFlags(command, autoregressiveArchitectures.made.presets, '{"hiddenDims": [500, 500]}');
      autoregressiveFlags.addTo(command, groups);
    },
    trainAutoregressive,
  );
}

/** `train` of an autoregressive model. */
export async function trainAutoregressive(
  output: Output,
  { out, resume, preset, ...options }: RunOptions,
): Promise<ExitCode> {
  const given = { ...autoregressiveFlags.given(options), ...(preset !== undefined && { preset }) };
  const run = await openRun({ out, resume }, given, {
    create: (folder) => AutoregressiveRun.create(settings(options, preset), folder),
    resume: (folder, changes) => AutoregressiveRun.resume(folder, changes),
  });
  const { dataset, model, folder, config } = run;
  describeRun(output, config.model, model, dataset);
  return trainLoop<AutoregressiveEvent>(output, run, {
    command: 'train-autoregressive',
    show: `sample-autoregressive ${shellWord(folder)}${config.labels ? ' --classes all' : ''}`,
    onEvent: async (event, progress) => progress.log(likelihoodLine(event)),
  });
}

function likelihoodLine(event: Extract<AutoregressiveEvent, { kind: 'likelihood' }>): string {
  const { split, images, logLikelihood, accuracy } = event;
  const right = accuracy === undefined ? '' : `; right about ${(100 * accuracy).toFixed(1)}% of their classes`;
  return `log p(x) of ${images} ${split} pictures: ${logLikelihood.toFixed(2)} nats${right}`;
}

function settings(options: Readonly<Record<string, unknown>>, preset?: string) {
  const { modelConfig, ...given } = autoregressiveFlags.given(options);
  if (given.model === undefined) throw new UsageError(`--model is missing: ${autoregressiveNames.join(', ')}`);
  if (given.data === undefined) throw new UsageError('--data is missing: such as mnist');
  const { presets } = autoregressiveArchitectures[given.model as keyof typeof autoregressiveArchitectures];
  return autoregressiveFlags.parse({ ...given, modelConfig: presetConfig(presets, preset, modelConfig) });
}
