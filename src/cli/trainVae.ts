import { type Command, Option } from 'commander';
import { autoencoderPresets, autoencoderTraining } from '../training/index.js';
import { AutoencoderRun } from '../training/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import { figure, type Output, shellWord } from './output.js';
import { type FlagGroups, flagName, jsonObject, presetNamed, SchemaFlags } from './schemaFlags.js';
import { openRun, reportSkipped, trainLoop } from './trainLoop.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly out?: string;
  readonly resume?: string;
  readonly preset?: string;
}

/** The flags that every training has. */
export const learningFlags: FlagGroups = [
  [
    'Optimisation:',
    {
      steps: 'total number of optimiser steps',
      batch: 'pictures per batch',
      accumulate: 'batches whose gradients are averaged before a step',
      seed: 'of initial weights, data order and noise',
      optimizer: 'update rule',
      learningRate: 'highest learning rate',
      lrSchedule: 'how the learning rate changes',
      lrStepRules: 'factors of piecewise_constant, such as 1:1000,0.1:2000,0.01',
      warmup: 'steps over which the learning rate rises from 0',
      weightDecay: 'decoupled decay, spared on biases, norms and embeddings',
      betas: 'decay rates of the moments of adamw',
      momentum: 'of sgd',
      clipNorm: 'scale gradients down to this joint norm',
      emaDecay: 'decay of the averaged weights that are saved for use',
    },
  ],
  [
    'Run:',
    {
      checkpointEvery: 'steps between checkpoints',
      keep: 'checkpoints to keep',
      logEvery: 'steps between lines of metrics.jsonl',
      device: 'where the computation runs',
      threads: 'threads of one operation; default: one per core',
    },
  ],
];

const groups: FlagGroups = [
  [
    'Data:',
    {
      data: 'a folder of pictures, or a data set as train takes it',
      size: 'scale and crop pictures to this side length',
      flip: 'mirror every second picture, chosen anew each epoch',
      skipCorrupt: 'leave out pictures that cannot be read instead of failing',
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
  addCommand<Options>(
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
      const sizes = Object.keys(autoencoderPresets).join(', ');
      command
        .option('--out <dir>', 'folder of the new run')
        .option('--resume <dir>', 'continue the run in this folder')
        .addOption(new Option('--preset <name>', `size: ${sizes} (default: xs)`).helpGroup('Model:'))
        .addOption(
          new Option(
            '--model-config <json>',
            `config fields that win over the preset, such as '{"latentChannels": 8}'`,
          ).helpGroup('Model:'),
        );
      flags.addTo(command, groups);
    },
    train,
  );
}

async function train(output: Output, { out, resume, preset, ...options }: Options): Promise<ExitCode> {
  const given = { ...flags.given(options), ...(preset !== undefined && { preset }) };
  const run = await openRun({ out, resume }, given, flagName, {
    create: (folder) => AutoencoderRun.create(settings(options, preset), folder),
    resume: (folder, changes) => AutoencoderRun.resume(folder, changes),
  });
  const { dataset, model, folder } = run;
  output.line(
    `AutoencoderKL, ${figure(model.parameterCount() / 1e6)} million parameters; ${dataset.name}: ${dataset.length} pictures of ${dataset.shape.join('x')}`,
  );
  reportSkipped(output, dataset.skipped);
  const show = `train-text-to-image --preset xs --vae ${shellWord(folder)} --data ${shellWord(run.config.data)} --out runs/a`;
  return trainLoop(output, run, { command: 'train-vae', show });
}

function settings(options: Readonly<Record<string, unknown>>, preset = 'xs') {
  const { modelConfig, ...given } = flags.given(options);
  if (given.data === undefined) throw new UsageError('--data is missing: such as a folder of pictures');
  const config = jsonObject('--model-config', modelConfig as string | undefined);
  return flags.parse({ ...given, modelConfig: { ...presetNamed(autoencoderPresets, preset), ...config } });
}
