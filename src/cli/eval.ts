import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { z } from 'zod';
import type { NdArray } from '../array/index.js';
import { type Dataset, readBatch } from '../data/index.js';
import { openDataset } from '../data/node/index.js';
import { readJson } from '../io/node/index.js';
import { loadClassifier } from '../models/node/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { Generator } from '../random/index.js';
import { type Classified, classify, type ImageQuality, imageQuality } from '../training/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes } from './exitCodes.js';
import { generate } from './generate.js';
import { interruptible } from './interrupt.js';
import { figure, type Output, table } from './output.js';
import { shippedCheckpoint, shippedClassifier } from './package.js';
import { Progress } from './progress.js';
import { parseGuidance, type SamplerName, samplerNamed, samplerNameOf, samplerNames, wholeNumber } from './values.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly samples: number;
  readonly guidance: string;
  readonly sampler?: SamplerName;
  readonly steps: number;
  readonly batch: number;
  readonly seed: number;
  readonly data?: string;
  readonly classifier: string;
  readonly device: 'cpu' | 'webgpu' | 'cuda';
  readonly threads?: number;
}

export function defineEval(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'eval',
      summary: 'judge a run: FID, KID, precision, recall and classifier accuracy of its pictures',
      examples: [
        'eval runs/a --samples 1000',
        'eval --samples 5000 --guidance 1.5 --sampler dpmpp-2m --steps 20 --json',
      ],
    },
    (command) => {
      command
        .argument('[run]', 'folder of a run; default: the checkpoint that comes with noisewright')
        .option('--samples <n>', 'pictures to make, spread over all classes', wholeNumber('--samples', 10), 5000)
        .option('--guidance <scale>', 'as in sample', '3')
        .addOption(
          new Option('--sampler <name>', 'default: the one that fits what the model predicts').choices(samplerNames),
        )
        .option('--steps <n>', 'steps of the sampler', wholeNumber('--steps'), 30)
        .option('--batch <n>', 'pictures made at a time', wholeNumber('--batch'), 128)
        .option('--seed <n>', 'of the noise', wholeNumber('--seed', 0), 0)
        .option('--data <data>', 'real pictures; default: what the run was trained on')
        .option(
          '--classifier <dir>',
          'whose features and classes count; it is the measure, so compare figures of one only',
          shippedClassifier,
        )
        .addOption(
          new Option('--device <name>', 'where the computation runs').choices(['cpu', 'webgpu', 'cuda']).default('cpu'),
        )
        .option('--threads <n>', 'threads of one operation; default: one per core', wholeNumber('--threads'))
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
  const { samples, steps, seed, batch } = options;
  const compile = { device: options.device, threads: options.threads };
  const guidance = parseGuidance(options.guidance);
  const pipeline = await ClassConditionalPipeline.fromPretrained(run);
  const sampler = options.sampler ? samplerNamed(options.sampler, pipeline.sampler) : pipeline.sampler;
  const classifier = await loadClassifier(options.classifier);
  const data = await dataOf(run, options.data);
  const train = await openDataset(data.name, { size: data.size });
  const count = train.classNames.length;
  if (pipeline.model.nullClass !== count || classifier.config.numClasses !== count)
    throw new Error(
      `${data.name} has ${count} classes, the model ${pipeline.model.nullClass ?? 'none'}, the classifier ${classifier.config.numClasses}: all must agree`,
    );

  const labels = Array.from({ length: samples }, (_, i) => i % count);
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
  const made = await classify(classifier, chunks(images), compile);

  output.line('comparing with real pictures');
  const reference = await classifyDataset(train, Math.max(10_000, samples));
  const generated = imageQuality(reference.features, made, labels);
  const test = await openDataset(data.name, { size: data.size, split: 'test' }).catch(() => undefined);
  const held = test && (await classifyDataset(test, samples));
  const real = held && imageQuality(reference.features, held, held.labels);
  report(output, generated, real, held?.labels.length);
  const settings = {
    run,
    samples,
    guidance: options.guidance,
    sampler: samplerNameOf(sampler),
    steps,
    seed,
    data: data.name,
  };
  output.record({ kind: 'evaluation', ...settings, generated, real: real ?? null });
  return exitCodes.ok;

  async function classifyDataset(dataset: Dataset, most: number): Promise<Classified & { labels: number[] }> {
    const chosen = new Generator(0).randperm(dataset.length).slice(0, most) as Int32Array;
    async function* read(): AsyncGenerator<NdArray> {
      for (let at = 0; at < chosen.length; at += chunk)
        yield (await readBatch(dataset, chosen.slice(at, at + chunk))).images;
    }
    return { ...(await classify(classifier, read(), compile)), labels: Array.from(chosen, (i) => dataset.label(i)) };
  }
}

const chunk = 250;

function* chunks({ data, shape: [count, ...shape] }: NdArray<'float32'>): IterableIterator<NdArray> {
  const size = data.length / count;
  for (let at = 0; at < count; at += chunk) {
    const part = data.slice(at * size, Math.min(count, at + chunk) * size);
    yield { dtype: 'float32', shape: [part.length / size, ...shape], data: part };
  }
}

const runData = z.looseObject({ data: z.string(), size: z.number().optional() });

/** What a run was trained on; the shipped checkpoint's folder may lack the note. */
async function dataOf(run: string, asked?: string): Promise<{ name: string; size?: number }> {
  const path = join(run, 'run.json');
  const known = await stat(path).catch(() => undefined);
  const { data: name, size } = known ? await readJson(path, runData) : { data: 'fashion-mnist', size: undefined };
  return { name: asked ?? name, size };
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
