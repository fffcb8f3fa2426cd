import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { type NdArray, ndarray } from '../array/index.js';
import { savePng } from '../io/node/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { classLabel, generate } from './generate.js';
import { guidersHelp } from './guidance.js';
import { interruptible } from './interrupt.js';
import { openJudge } from './judge.js';
import { guiderReader } from './openGuider.js';
import { samplerFor } from './openPipeline.js';
import { figure, type Output, shellWord, table } from './output.js';
import { shippedCheckpoint, shippedClassifier } from './package.js';
import { pictureNote } from './pictureNote.js';
import { Progress } from './progress.js';
import { type Metric, type SweepTable, sweepFigure } from './sweepFigure.js';
import { axisValue, type SweepLists, type SweepPoint, seriesOf, sweepPlan } from './sweepPlan.js';
import { type SweepResult, SweepStore } from './sweepStore.js';
import { samplerNameOf, samplerNames, wholeNumber } from './values.js';

interface Options extends SweepLists, ComputeOptions {
  readonly metric: string;
  readonly samples: number;
  readonly batch: number;
  readonly seed: number;
  readonly data?: string;
  readonly classifier: string;
  readonly noisyClassifier?: string;
  readonly weaker?: string;
  readonly out: string;
}

const metricNames: readonly Metric[] = ['fid', 'kid', 'precision', 'recall', 'accuracy'];
/** Pictures of a point that are kept to be shown. */
const kept = 20;

export function defineSweep(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'sweep',
      summary: 'try guidance scales, guiders, samplers or steps: pictures side by side, and curves of their quality',
      examples: [
        'sweep runs/a --guidance 0,1,2,4,8 --out sweep.png',
        'sweep --guider cfg,cfg=2+pag --guidance 0,1,2,3 --metric fid,accuracy,precision,recall',
        'sweep --guider cfg,classifier --noisy-classifier runs/clf --guidance 0,1,2,4',
        'sweep --sampler flow-euler,dpmpp-2m --guidance 2 --steps 5,10,20 --samples 500',
      ],
    },
    (command) => {
      command
        .argument('[run]', 'folder of a run; default: the checkpoint that comes with noisewright')
        .option('--guidance <scales>', 'numbers parted by commas', '0,1,2,4,8')
        .option(
          '--guider <list>',
          'whose scale it is; more is joined by +, as in cfg,cfg=2+pag+layers=4; s is the scale in fdg=s:1',
          'cfg',
        )
        .option(
          '--sampler <list>',
          `any of ${samplerNames.join(', ')}; default: the one that fits what the model predicts`,
        )
        .option('--steps <list>', 'steps of the sampler', '20')
        .option('--metric <list>', `what to draw: ${metricNames.join(', ')}`, 'fid,accuracy')
        .option('--samples <n>', 'pictures to make at each point', wholeNumber('--samples', 10), 1000)
        .option('--batch <n>', 'pictures made at a time', wholeNumber('--batch'), 128)
        .option('--seed <n>', 'of the noise, the same at each point', wholeNumber('--seed', 0), 0)
        .option('--data <data>', 'real pictures; default: what the run was trained on')
        .option('--classifier <dir>', 'whose features and classes count', shippedClassifier)
        .option('--noisy-classifier <run>', "sample's --classifier, for the guider classifier")
        .option('--weaker <run>', 'a smaller or less trained run for the guider auto to move away from')
        .addOption(deviceFlag())
        .addOption(threadsFlag())
        .option('--out <file>', 'the figure, a PNG', 'sweep.png')
        .addHelpText(
          'after',
          `\nResults are kept beside the figure (sweep.points.safetensors): after Ctrl-C the same command goes on, and with\nmore values it computes the new ones only. Compare FIDs of equally many samples only.\n${guidersHelp}`,
        );
    },
    sweep,
  );
}

async function sweep(
  output: Output,
  options: Options,
  [run = shippedCheckpoint]: readonly string[],
): Promise<ExitCode> {
  const { samples, seed, out } = options;
  const metrics = metricsOf(options.metric);
  if (!/\.png$/i.test(out)) throw new UsageError(`--out: ${out} must end in .png`);
  const pipeline = await ClassConditionalPipeline.fromPretrained(run);
  const { noisyClassifier, weaker } = options;
  const guiderOf = await guiderReader(pipeline, pipeline.sampler, { weaker, classifier: noisyClassifier });
  const plan = sweepPlan(options, guiderOf);
  const samplerOf = ({ sampler, steps }: SweepPoint) => samplerFor(pipeline, steps, sampler);
  plan.points.forEach(samplerOf); // one that does not fit is refused before any work
  const compile = { device: options.device, threads: options.threads };
  const judge = await openJudge({ ...options, run, pipeline, compile });
  const labels = Array.from({ length: samples }, (_, i) => i % judge.classes);

  const changed = (await stat(join(run, 'model_index.json'))).mtimeMs;
  const { data, classifier } = { data: judge.data, classifier: resolve(options.classifier) };
  const asked = [weaker, noisyClassifier].map((path) => path && resolve(path));
  const settings = {
    ...{ run: resolve(run), changed, samples, batch: options.batch, seed, data, classifier },
    ...(asked.some(Boolean) && { asked }),
  };
  const store = await SweepStore.open(`${out.slice(0, -4)}.points.safetensors`, JSON.stringify(settings));
  const known = plan.points.filter((point) => store.get(keyOf(point))).length;
  if (known > 0) output.line(`${known} of ${plan.points.length} points are known from ${store.path}`);
  const todo = plan.points.filter((point) => !store.get(keyOf(point)));
  const total = todo.length * samples;
  const progress = new Progress(output, { label: 'sampling', total });
  await interruptible(
    async (signal) => {
      for (const [i, point] of todo.entries()) {
        const { images } = await generate({
          ...options,
          pipeline,
          classes: labels,
          guidance: guiderOf(point.guidance),
          sampler: samplerOf(point),
          steps: point.steps,
          compile,
          signal,
          onStep: (done, of) => progress.update(Math.floor((i + done / of) * samples)),
        });
        const quality = await judge.quality(images, labels);
        await store.put(keyOf(point), { quality, pictures: first(images, kept) });
        progress.log(`${keyOf(point)}: FID ${figure(quality.fid)}, accuracy ${percent(quality.accuracy)}`);
      }
    },
    () => progress.log(`stopping; finished points are kept in ${store.path}, and the same command goes on`),
  ).finally(() => progress.stop());

  const resultOf = (point: SweepPoint): SweepResult => store.get(keyOf(point))!;
  const shown: SweepTable = {
    ...plan,
    names: Array.from({ length: Math.min(kept, samples) }, (_, i) => classLabel(pipeline, labels[i])),
    cell: (series, value) =>
      resultOf(
        plan.points.find(
          (point) => axisValue(point, plan.axis) === value && seriesOf(point, plan.axis, options) === series,
        )!,
      ),
  };
  const words = { run, samples, seed, data, guider: options.guider, guidance: options.guidance, steps: options.steps };
  await savePng(out, await sweepFigure(shown, metrics), pictureNote(words));
  const real = await judge.real();
  const row = (name: readonly string[], quality: SweepResult['quality']) => [
    ...name,
    ...metrics.map((metric) => (metric === 'fid' || metric === 'kid' ? figure : percent)(quality[metric])),
  ];
  const rows = plan.points.map((point) => row(wordsOf(point), resultOf(point).quality));
  const heading = ['guidance', 'sampler', 'steps', ...metrics];
  const last = real ? [row([`${real.count} real test pictures`, '', ''], real.quality)] : [];
  for (const line of table([heading, ...rows, ...last])) output.line(line);
  output.line(`figure: ${shellWord(out)}`);
  for (const point of plan.points)
    output.record({ kind: 'point', ...point, sampler: samplerNameOf(samplerOf(point)), ...resultOf(point).quality });
  output.record({ kind: 'sweep', ...words, out, points: store.path, real: real?.quality ?? null });
  return exitCodes.ok;

  function wordsOf(point: SweepPoint): string[] {
    return [point.guidance, samplerNameOf(samplerOf(point)), String(point.steps)];
  }
  function keyOf(point: SweepPoint): string {
    return wordsOf(point).join(' ');
  }
}

function metricsOf(list: string): Metric[] {
  return list.split(',').map((word) => {
    const name = metricNames.find((metric) => metric === word.trim().toLowerCase());
    if (!name) throw new UsageError(`--metric: expected any of ${metricNames.join(', ')}, got '${word}'`);
    return name;
  });
}

const percent = (x: number): string => `${(100 * x).toFixed(1)}%`;

function first({ data, shape: [count, ...shape] }: NdArray<'float32'>, most: number): NdArray<'float32'> {
  const n = Math.min(count, most);
  return ndarray(data.slice(0, (data.length / count) * n), [n, ...shape]);
}
