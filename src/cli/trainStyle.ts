import { type Command, Option } from 'commander';
import { styleTraining } from '../training/index.js';
import { type StyleEvent, StyleRun } from '../training/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import { figure, type Output, shellWord } from './output.js';
import { addFolderFlags, learningFlags, pictureFlags, type RunOptions } from './runFlags.js';
import { type FlagGroups, SchemaFlags } from './schemaFlags.js';
import { openRun, reportSkipped, trainLoop } from './trainLoop.js';

const groups: FlagGroups = [
  [
    'Data:',
    {
      content: 'pictures to be stylized, as in train',
      style: 'pictures of the styles, as in train; textures paints its own',
      ...pictureFlags,
    },
  ],
  [
    'Model:',
    {
      objective: 'style: paint; reconstruction: make an encoder that can begin the other',
      channels: 'of the four levels, when the encoder is random',
      pooling: 'when the encoder is random; average leaves fewer dots',
      contentWeight: "of the content's loss",
      styleWeight: "of the style's loss",
      identityWeight: "of the pixels' error where a content's style is its own; 30, say, keeps shapes",
    },
  ],
  ...learningFlags,
];
const flags = new SchemaFlags(styleTraining);

export function defineTrainStyle(program: Command, cli: Cli): void {
  addCommand<RunOptions>(
    program,
    cli,
    {
      name: 'train-style',
      summary: 'train the decoder that stylize paints with',
      examples: [
        'train-style --content photos --style paintings --encoder vgg19.safetensors --steps 160000 --out runs/style',
        'train-style --objective reconstruction --content photos --style textures --out runs/eyes    # a small encoder, then',
        'train-style --content photos --style textures --encoder runs/eyes --size 64 --out runs/small',
        'train-style --resume runs/small --steps 4000',
      ],
    },
    (command) => {
      addFolderFlags(command).addOption(
        new Option(
          '--encoder <path>',
          "safetensors of torchvision's vgg19 or vgg_normalised, or a folder of train-style or train-classifier --model vgg; default: random weights",
        ).helpGroup('Model:'),
      );
      flags.addTo(command, groups);
    },
    train,
  );
}

async function train(output: Output, { out, resume, ...options }: RunOptions): Promise<ExitCode> {
  const run = await openRun({ out, resume }, flags.given(options), {
    create: (folder) => StyleRun.create(settings(options), folder),
    resume: (folder, changes) => StyleRun.resume(folder, changes),
  });
  const { contents, styles, folder, net } = run;
  output.line(
    `AdaINNet, ${figure(net.decoder.parameterCount() / 1e6)} million parameters to train; ${contents.name}: ${contents.length} contents, ${styles.name}: ${styles.length} styles`,
  );
  reportSkipped(output, [...(contents.skipped ?? []), ...(styles.skipped ?? [])]);
  return trainLoop<StyleEvent>(output, run, {
    command: 'train-style',
    show: `stylize --content a.jpg --style b.jpg --weights ${shellWord(folder)}`,
    onEvent: async ({ contentLoss, styleLoss }, progress) =>
      progress.log(`content ${figure(contentLoss)}, style ${figure(styleLoss)}`),
  });
}

function settings(options: Readonly<Record<string, unknown>>) {
  const given = flags.given(options);
  if (given.content === undefined) throw new UsageError('--content is missing: pictures to be stylized');
  if (given.style === undefined) throw new UsageError('--style is missing: pictures of the styles, or textures');
  return flags.parse(given);
}
