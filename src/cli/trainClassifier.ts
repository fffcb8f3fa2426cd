import { readdir } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import { batches, type Dataset } from '../data/index.js';
import { openDataset } from '../data/node/index.js';
import { makeFolder } from '../io/node/index.js';
import { ImageClassifier, VggClassifier } from '../models/index.js';
import { saveClassifier } from '../models/node/index.js';
import { Generator } from '../random/index.js';
import { classify, DivergedError, trainClassifier } from '../training/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { interruptible } from './interrupt.js';
import { duration, type Output, shellWord } from './output.js';
import { Progress } from './progress.js';
import { number, wholeNumber } from './values.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly data: string;
  readonly model: 'small' | 'vgg';
  readonly channels: string;
  readonly epochs: number;
  readonly batch: number;
  readonly learningRate: number;
  readonly size?: number;
  readonly seed: number;
  readonly out?: string;
  readonly threads?: number;
}

export function defineTrainClassifier(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'train-classifier',
      summary: 'train the small classifier whose features eval measures with, or a VGG for train-style',
      examples: [
        'train-classifier --data fashion-mnist --epochs 4 --out classifier',
        'eval runs/a --classifier classifier',
        'train-classifier --model vgg --data textures --size 64 --out runs/vgg    # an encoder for train-style',
      ],
    },
    (command) => {
      command
        .option('--data <data>', 'pictures with a train and a test split, as in train', 'fashion-mnist')
        .addOption(
          new Option('--model <name>', 'small: features for eval; vgg: an encoder for train-style')
            .choices(['small', 'vgg'])
            .default('small'),
        )
        .option('--channels <list>', 'with vgg: of the four levels', '16,32,64,128')
        .option('--epochs <n>', 'times through all pictures', wholeNumber('--epochs'), 4)
        .option('--batch <n>', 'pictures per batch', wholeNumber('--batch'), 128)
        .option('--learning-rate <n>', 'highest learning rate', number('--learning-rate'), 3e-3)
        .option('--size <n>', 'scale and crop pictures to this side length', wholeNumber('--size'))
        .option('--seed <n>', 'of initial weights and data order', wholeNumber('--seed', 0), 0)
        .option('--out <dir>', 'folder of the classifier')
        .option('--threads <n>', 'threads of one operation; default: one per core', wholeNumber('--threads'));
    },
    train,
  );
}

async function train(output: Output, options: Options): Promise<ExitCode> {
  const { data, model, channels, epochs, batch, learningRate, size, seed, out, threads } = options;
  if (out === undefined) throw new UsageError('--out is missing: the folder of the classifier');
  if (!(learningRate > 0)) throw new UsageError(`--learning-rate: expected a number above 0, got ${learningRate}`);
  await makeFolder(out);
  if ((await readdir(out)).length > 0)
    throw new UsageError(`--out: the folder ${out} is not empty; choose another, or empty it first`);
  const [dataset, test] = [await openDataset(data, { size }), await openDataset(data, { size, split: 'test' })];
  const numClasses = dataset.classNames.length;
  const rng = new Generator(seed);
  const classifier =
    model === 'vgg'
      ? new VggClassifier({ channels: channelsOf(channels), numClasses }, rng)
      : new ImageClassifier({ inChannels: dataset.shape[0], numClasses }, rng);
  const compile = { threads };
  const progress = new Progress(output, { label: 'training', total: Math.floor(dataset.length / batch) * epochs });
  const began = performance.now();
  await interruptible(async (signal) => {
    const events = trainClassifier(classifier, dataset, { epochs, batch, learningRate, seed, signal, compile });
    for await (const event of events) {
      if (!Number.isFinite(event.loss))
        throw new DivergedError(
          `training diverged at step ${event.step}: the loss is ${event.loss}. Lower the learning rate.`,
        );
      progress.update(event.step, event);
      if (event.step % 50 === 0) output.record({ kind: 'step', ...event });
    }
  }).finally(() => progress.stop());
  const seconds = Math.round((performance.now() - began) / 1000);

  const { classes } = await classify(classifier, imagesOf(test), compile);
  const testAccuracy = classes.filter((label, i) => label === test.label(i)).length / test.length;
  const sizeFlag = size === undefined ? '' : ` --size ${size}`;
  const modelFlags = model === 'vgg' ? ` --model vgg --channels ${channels}` : '';
  const command = `noisewright train-classifier${modelFlags} --data ${shellWord(data)} --epochs ${epochs} --batch ${batch} --learning-rate ${learningRate}${sizeFlag} --seed ${seed} --out ${shellWord(out)}`;
  await saveClassifier(out, classifier, { command, seconds, testAccuracy });
  output.line(
    `${(100 * testAccuracy).toFixed(2)}% of ${test.length} test pictures are right, after ${duration(seconds)}`,
  );
  output.line(`classifier: ${out}`);
  output.record({ kind: 'done', out, testAccuracy, seconds });
  return exitCodes.ok;
}

async function* imagesOf(dataset: Dataset) {
  for await (const { images } of batches(dataset, { batch: 250, shuffle: false, dropLast: false, epochs: 1 }))
    yield images;
}

function channelsOf(text: string): [number, number, number, number] {
  const [a, b, c, d, ...more] = text.split(',').map(wholeNumber('--channels'));
  if (d === undefined || more.length > 0) throw new UsageError(`--channels: expected four numbers, got '${text}'`);
  return [a, b, c, d];
}
