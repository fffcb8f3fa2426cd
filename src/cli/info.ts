import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { readJson } from '../io/node/index.js';
import { denoiserClassOf } from '../models/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes } from './exitCodes.js';
import { duration, figure, type Output, sparkline, table } from './output.js';
import { shippedCheckpoint } from './package.js';

const metric = z.looseObject({
  step: z.number(),
  loss: z.number(),
  learningRate: z.number(),
  imagesPerSecond: z.number(),
  seconds: z.number(),
});
type Metric = z.output<typeof metric>;

export function defineInfo(program: Command, cli: Cli): void {
  addCommand(
    program,
    cli,
    {
      name: 'info',
      summary: 'show a run: its config, parameters and training history',
      examples: [
        'info runs/a',
        'info runs/a --json',
        'info                                  # the checkpoint that comes with noisewright',
      ],
    },
    (command) => {
      command.argument('[run]', "folder of a run, or any class-conditional pipeline in diffusers' layout");
    },
    info,
  );
}

async function info(output: Output, _: object, [run = shippedCheckpoint]: readonly string[]): Promise<ExitCode> {
  const { model, sampler, classNames } = await ClassConditionalPipeline.fromPretrained(run);
  const path = join(run, 'run.json');
  const config = (await stat(path).catch(() => undefined)) && (await readJson<object>(path));
  const metrics = await readMetrics(join(run, 'metrics.jsonl'));
  const parameters = model.parameterCount();
  const { className } = denoiserClassOf(model);
  output.record({
    kind: 'info',
    run,
    model: className,
    parameters,
    predicts: sampler.predictionType,
    sampler: sampler.toConfig(),
    modelConfig: model.config,
    classNames,
    config: config ?? null,
    metrics,
  });

  output.line(`${run}\n`);
  const show = (value: unknown) => (typeof value === 'object' ? JSON.stringify(value) : String(value));
  const list = (title: string, rows: readonly (readonly [string, unknown])[]) => {
    const width = Math.max(...rows.map(([name]) => name.length));
    output.line(`${title}`);
    for (const [name, value] of rows) output.line(`  ${name.padEnd(width)}  ${show(value)}`);
    output.line('');
  };
  list(className, [
    ['parameters', parameters.toLocaleString('en')],
    ['predicts', sampler.predictionType],
    ['sampler', sampler.className],
    ['classes', classNames.join(', ') || (model.nullClass ?? 'none')],
    ...Object.entries(model.config).filter(([, value]) => value !== undefined && value !== null),
  ]);
  if (config)
    list(
      'Training',
      Object.entries(config).filter(([name]) => name !== 'modelConfig' && name !== 'model'),
    );
  history(output, metrics);
  return exitCodes.ok;
}

/** The lines of metrics.jsonl; one that a kill cut short is left out. */
async function readMetrics(path: string): Promise<Metric[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.split('\n').flatMap((line) => {
    try {
      return [metric.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Evenly cut into at most `count` parts. */
function parts<T>(values: readonly T[], count: number): T[][] {
  const most = Math.min(count, values.length);
  const cut = (i: number) => Math.round((i * values.length) / most);
  return Array.from({ length: most }, (_, i) => values.slice(cut(i), cut(i + 1)));
}

function history(output: Output, metrics: readonly Metric[]): void {
  if (metrics.length === 0) {
    output.line('no training history (metrics.jsonl is missing or empty)');
    return;
  }
  const rows = parts(metrics, 10).map((part) => {
    const last = part[part.length - 1];
    const [loss, speed] = [mean(part.map((m) => m.loss)), mean(part.map((m) => m.imagesPerSecond))];
    return [
      String(last.step),
      loss.toFixed(4),
      last.learningRate.toExponential(1),
      figure(speed),
      duration(last.seconds),
    ];
  });
  for (const line of table([['step', 'loss', 'learning rate', 'images/s', 'time'], ...rows])) output.line(line);
  output.line(`\nloss  ${sparkline(parts(metrics, 60).map((part) => Math.log(mean(part.map((m) => m.loss)))))}`);
}
