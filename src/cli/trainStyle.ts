import { readdir } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import { openDataset } from '../data/node/index.js';
import { makeFolder } from '../io/node/index.js';
import { AdaINNet } from '../models/index.js';
import { saveStyleNet, styleNetWithEncoder } from '../models/node/index.js';
import { Generator } from '../random/index.js';
import { DivergedError, normalizeActivations, type StyleEvent, trainStyle } from '../training/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { interruptible } from './interrupt.js';
import { duration, figure, type Output } from './output.js';
import { Progress } from './progress.js';
import { number, wholeNumber } from './values.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly content?: string;
  readonly style?: string;
  readonly encoder?: string;
  readonly channels: string;
  readonly size: number;
  readonly steps: number;
  readonly batch: number;
  readonly learningRate: number;
  readonly contentWeight: number;
  readonly styleWeight: number;
  readonly seed: number;
  readonly out?: string;
  readonly device: 'cpu' | 'webgpu' | 'cuda';
  readonly threads?: number;
}

export function defineTrainStyle(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'train-style',
      summary: 'train the decoder that stylize paints with',
      examples: [
        'train-style --content folder:photos --style folder:paintings --encoder vgg19.safetensors --out runs/style',
        'train-style --content folder:photos --style folder:paintings --channels 16,32,64,128 --out runs/small',
      ],
    },
    (command) => {
      command
        .option('--content <data>', 'pictures to be stylized, as in train')
        .option('--style <data>', 'pictures of the styles, as in train')
        .option('--encoder <file>', "safetensors of torchvision's vgg19 or vgg_normalised; default: random weights")
        .option('--channels <list>', 'of the four levels, when the weights are random', '16,32,64,128')
        .option('--size <n>', 'scale and crop pictures to this side length', wholeNumber('--size', 9), 128)
        .option('--steps <n>', 'updates of the decoder', wholeNumber('--steps'), 1000)
        .option('--batch <n>', 'pairs of pictures per step', wholeNumber('--batch'), 8)
        .option('--learning-rate <n>', 'of Adam, at first', number('--learning-rate'), 1e-4)
        .option('--content-weight <n>', "of the content's loss", number('--content-weight'), 1)
        .option('--style-weight <n>', "of the style's loss", number('--style-weight'), 10)
        .option('--seed <n>', 'of initial weights and data order', wholeNumber('--seed', 0), 0)
        .option('--out <dir>', 'folder of the net')
        .addOption(
          new Option('--device <name>', 'where the computation runs').choices(['cpu', 'webgpu', 'cuda']).default('cpu'),
        )
        .option('--threads <n>', 'threads of one operation; default: one per core', wholeNumber('--threads'));
    },
    train,
  );
}

async function train(output: Output, options: Options): Promise<ExitCode> {
  const { content, style, encoder, size, steps, learningRate, seed, out, device, threads } = options;
  if (content === undefined) throw new UsageError('--content is missing: pictures to be stylized');
  if (style === undefined) throw new UsageError('--style is missing: pictures of the styles');
  if (out === undefined) throw new UsageError('--out is missing: the folder of the net');
  if (!(learningRate > 0)) throw new UsageError(`--learning-rate: expected a number above 0, got ${learningRate}`);
  const channels = channelsOf(options.channels);
  await makeFolder(out);
  if ((await readdir(out)).length > 0)
    throw new UsageError(`--out: the folder ${out} is not empty; choose another, or empty it first`);
  const [contents, styles] = [await openDataset(content, { size }), await openDataset(style, { size })];
  const net = encoder
    ? await styleNetWithEncoder(encoder, new Generator(seed))
    : new AdaINNet({ channels }, new Generator(seed));
  const compile = { device, threads };
  await normalizeActivations(net.encoder, contents, { compile });

  const progress = new Progress(output, { label: 'training', total: steps });
  const began = performance.now();
  let last: StyleEvent | undefined;
  await interruptible(async (signal) => {
    for await (const event of trainStyle(net, contents, styles, { ...options, signal, compile })) {
      if (!Number.isFinite(event.loss))
        throw new DivergedError(
          `training diverged at step ${event.step}: the loss is ${event.loss}. Lower the learning rate.`,
        );
      progress.update(event.step, event);
      if (event.step % 50 === 0) output.record({ kind: 'step', ...event });
      last = event;
    }
  }).finally(() => progress.stop());
  const seconds = Math.round((performance.now() - began) / 1000);
  const { contentLoss = Number.NaN, styleLoss = Number.NaN } = last ?? {};
  await saveStyleNet(out, net, { ...options, seconds, contentLoss, styleLoss });
  output.line(`content ${figure(contentLoss)}, style ${figure(styleLoss)} after ${duration(seconds)}`);
  output.line(`net: ${out}`);
  output.record({ kind: 'done', out, contentLoss, styleLoss, seconds });
  return exitCodes.ok;
}

function channelsOf(text: string): [number, number, number, number] {
  const [a, b, c, d, ...more] = text.split(',').map(wholeNumber('--channels'));
  if (d === undefined || more.length > 0) throw new UsageError(`--channels: expected four numbers, got '${text}'`);
  return [a, b, c, d];
}
