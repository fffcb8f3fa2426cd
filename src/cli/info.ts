import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { pathExists, readJson } from '../io/node/index.js';
import { classNameOf, EncoderUNet } from '../models/index.js';
import { ClassConditionalPipeline, loadNoisyClassifier } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes } from './exitCodes.js';
import { densityParts, likelihoodLine, likelihoodMetric } from './infoDensity.js';
import { type Part, partsOf, schedulerOf } from './infoParts.js';
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
/** Of a classifier of noisy pictures. */
const accuracyMetric = z.looseObject({ step: z.number(), accuracyByTimestep: z.array(z.number()) });

export function defineInfo(program: Command, cli: Cli): void {
  addCommand(
    program,
    cli,
    {
      name: 'info',
      summary: 'show a run or a model: its config, parameters and training history',
      examples: [
        'info runs/a',
        'info runs/a --json',
        'info ./sd15',
        'info                                  # the checkpoint that comes with noisewright',
      ],
    },
    (command) => {
      command.argument('[run]', "folder of a run or of a model in diffusers' layout, or a LoRA's .safetensors file");
    },
    info,
  );
}

async function info(output: Output, _: object, [run = shippedCheckpoint]: readonly string[]): Promise<ExitCode> {
  const parts = (await densityParts(run)) ?? (await partsOf(run));
  if (parts) return describeParts(output, run, parts);
  const { model, sampler, classNames } = await open(run);
  const config = await settingsOf(run);
  const history = join(run, 'metrics.jsonl');
  const [metrics, accuracies] = [await readMetrics(history, metric), await readMetrics(history, accuracyMetric)];
  const parameters = model.parameterCount();
  const className = String(classNameOf(model));
  const classifies = model instanceof EncoderUNet;
  const predicts = classifies ? 'classes of noisy pictures' : sampler.predictionType;
  output.record({
    kind: 'info',
    run,
    model: className,
    parameters,
    predicts,
    sampler: sampler.toConfig(),
    modelConfig: model.config,
    classNames,
    config: config ?? null,
    metrics,
    ...(accuracies.length > 0 && { accuracies }),
  });

  output.line(`${run}\n`);
  list(output, className, [
    ['parameters', parameters.toLocaleString('en')],
    ['predicts', predicts],
    ['sampler', sampler.className],
    ['classes', classNames.join(', ') || ((classifies ? model.numClasses : model.nullClass) ?? 'none')],
    ...given(model.config),
  ]);
  if (config) list(output, 'Training', trained(config, ['modelConfig', 'model']));
  showHistory(output, metrics);
  const { step, accuracyByTimestep: shares } = accuracies.at(-1) ?? { step: 0, accuracyByTimestep: [] };
  if (shares.length > 0) {
    const listed = shares.map((share) => `${Math.round(100 * share)}%`).join(' ');
    output.line(`right    ${sparkline(shares)}  ${listed}  (after step ${step}; by tenths of the timesteps)`);
  }
  return exitCodes.ok;
}

/** Systems of several networks: text-to-image, and what is trained for it. */
async function describeParts(output: Output, run: string, parts: readonly Part[]): Promise<ExitCode> {
  const [config, sampler] = [await settingsOf(run), await schedulerOf(run)];
  const history = join(run, 'metrics.jsonl');
  const [metrics, likelihoods] = [await readMetrics(history, metric), await readMetrics(history, likelihoodMetric)];
  const parameters = parts.reduce((sum, part) => sum + part.parameters, 0);
  const shared = { kind: 'info', run, parts, parameters, sampler: sampler ?? null, config: config ?? null, metrics };
  output.record({ ...shared, ...(likelihoods.length > 0 && { likelihoods }) });
  output.line(`${run}\n`);
  for (const { name, className, parameters, config } of parts)
    list(output, name === run ? className : `${name}: ${className}`, [
      ['parameters', parameters.toLocaleString('en')],
      ...given(config),
    ]);
  if (sampler) list(output, `scheduler: ${sampler._class_name}`, [['predicts', sampler.prediction_type ?? 'flow']]);
  if (config) list(output, 'Training', trained(config, ['modelConfig', 'textConfig']));
  if (config || metrics.length > 0) showHistory(output, metrics);
  const last = likelihoods.at(-1);
  if (last) output.line(likelihoodLine(last));
  return exitCodes.ok;
}

async function settingsOf(run: string): Promise<object | undefined> {
  const path = join(run, 'run.json');
  return (await pathExists(path)) ? readJson<object>(path) : undefined;
}

const given = (config: object) => Object.entries(config).filter(([, value]) => value !== undefined && value !== null);
const trained = (config: object, besides: readonly string[]) =>
  Object.entries(config).filter(([name]) => !besides.includes(name));

function list(output: Output, title: string, rows: readonly (readonly [string, unknown])[]): void {
  const width = Math.max(...rows.map(([name]) => name.length));
  output.line(title);
  for (const [name, value] of rows)
    output.line(`  ${name.padEnd(width)}  ${typeof value === 'object' ? JSON.stringify(value) : value}`);
  output.line('');
}

/** A denoiser's folder, or that of a classifier of noisy pictures. */
async function open(run: string) {
  const index = await readJson<object>(join(run, 'model_index.json'));
  if (!('classifier' in index)) return ClassConditionalPipeline.fromPretrained(run);
  const { classifier: model, noise: sampler, classNames } = await loadNoisyClassifier(run);
  return { model, sampler, classNames };
}

/** The lines of metrics.jsonl; one that a kill cut short is left out. */
async function readMetrics<T>(path: string, schema: z.ZodType<T>): Promise<T[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.split('\n').flatMap((line) => {
    try {
      return [schema.parse(JSON.parse(line))];
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

function showHistory(output: Output, metrics: readonly Metric[]): void {
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
  output.line(`\nloss     ${sparkline(parts(metrics, 60).map((part) => Math.log(mean(part.map((m) => m.loss)))))}`);
}
