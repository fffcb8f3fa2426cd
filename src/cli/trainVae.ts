import type { Command } from 'commander';
import { autoencoderPresets, autoencoderTraining } from '../training/index.js';
import { AutoencoderRun } from '../training/node/index.js';
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
      data: 'a folder of pictures, or a data set as train takes it',
      ...pictureFlags,
    },
  ],
  [
    'Model:',
    {
      klWeight: "of the latents' divergence from a standard normal, beside the mean square error",
      perceptual: "compare pictures by a network, too: VGG-19's .safetensors file, or a folder of train-classifier",
      perceptualWeight: 'of the distance that it sees',
    },
  ],
  ...learningFlags,
];
const flags = new SchemaFlags(autoencoderTraining);

export function defineTrainVae(program: Command, cli: Cli): void {
  addCommand<RunOptions>(
    program,
    cli,
    {
      name: 'train-vae',
      summary: 'train an autoencoder whose latents a text-to-image model works in',
      examples: [
        'train-vae --data photos --size 32 --steps 3000 --out runs/vae',
        'train-vae --resume runs/vae --steps 6000',
        'train-text-to-image --preset xs --vae runs/vae --data photos --out runs/a',
      ],
    },
    (command) => {
      addFolderFlags(command);
      addPresetFlags(command, autoencoderPresets, '{"latentChannels": 8}');
      flags.addTo(command, groups);
    },
    train,
  );
}

async function train(output: Output, { out, resume, preset, ...options }: RunOptions): Promise<ExitCode> {
  const given = { ...flags.given(options), ...(preset !== undefined && { preset }) };
  const run = await openRun({ out, resume }, given, {
    create: (folder) => AutoencoderRun.create(settings(options, preset), folder),
    resume: (folder, changes) => AutoencoderRun.resume(folder, changes),
  });
  const { dataset, model, folder } = run;
  describeRun(output, 'AutoencoderKL', model, dataset);
  const show = `train-text-to-image --preset xs --vae ${shellWord(folder)} --data ${shellWord(run.config.data)} --out runs/a`;
  return trainLoop(output, run, { command: 'train-vae', show });
}

function settings(options: Readonly<Record<string, unknown>>, preset?: string) {
  const { modelConfig, ...given } = flags.given(options);
  if (given.data === undefined) throw new UsageError('--data is missing: such as a folder of pictures');
  return flags.parse({ ...given, modelConfig: presetConfig(autoencoderPresets, preset, modelConfig) });
}
