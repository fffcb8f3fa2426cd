import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { cfg } from '../guidance/index.js';
import { imageGrid } from '../io/index.js';
import { makeFolder, savePng } from '../io/node/index.js';
import { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { TrainingRun } from '../training/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { classLabel, type Generated, generate, joined } from './generate.js';
import { interruptible } from './interrupt.js';
import { figure, type Output, shellWord } from './output.js';
import { shippedCheckpoint } from './package.js';
import { Progress } from './progress.js';
import { animate } from './sample.js';
import { self } from './self.js';

interface Options extends Readonly<Record<string, unknown>> {
  readonly minutes: number;
  readonly out: string;
}

export function defineDemo(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'demo',
      summary: 'train a small DiT for two minutes, then make pictures with it and with the shipped checkpoint',
      examples: ['demo', 'demo --minutes 10 --out my-demo'],
    },
    (command) => {
      command
        .option('--minutes <n>', 'time to train', minutes, 2)
        .option('--out <dir>', 'where everything is written; a former demo there is replaced', 'demo-output');
    },
    demo,
  );
}

function minutes(text: string): number {
  const value = Number(text);
  if (value > 0) return value;
  throw new UsageError(`--minutes: expected a number above 0, got '${text}'`);
}

const guidanceScales = [0, 1, 3];
const perScale = 3;
const steps = 20;

async function demo(output: Output, options: Options): Promise<ExitCode> {
  const { out } = options;
  const folder = join(out, 'run');
  await makeFolder(out);
  await rm(folder, { recursive: true, force: true });
  return interruptible(async (signal) => {
    await train(output, folder, options.minutes, signal);
    if (signal.aborted) return exitCodes.interrupted;

    const models = { trained: folder, shipped: shippedCheckpoint };
    const files: Record<string, string> = {};
    for (const [name, path] of Object.entries(models)) {
      files[name] = join(out, `${name}.png`);
      await guidanceGrid(output, `sampling the ${name} model`, path, files[name], signal);
    }
    files.animation = join(out, 'denoising.gif');
    await animation(output, files.animation, signal);

    output.line('');
    output.line(
      `${files.trained}: the model trained just now; guidance ${guidanceScales.join(', ')} from left to right`,
    );
    output.line(`${files.shipped}: the same from the checkpoint that comes with noisewright`);
    output.line(`${files.animation}: from noise to pictures`);
    output.line('\nTry next:');
    output.line(`  ${self()} sample --classes sneaker,bag --guidance 3 --out mine.png`);
    output.line(`  ${self()} train --resume ${shellWord(folder)}      # goes on where the demo stopped`);
    output.record({ kind: 'done', run: folder, files });
    return exitCodes.ok;
  });
}

/** A model, and batches, small enough to show something after two minutes on two cores; time, not a number of steps, ends it. */
async function train(output: Output, folder: string, minutes: number, signal: AbortSignal): Promise<void> {
  const run = await TrainingRun.create(
    {
      model: 'DiTTransformer2DModel',
      modelConfig: { numAttentionHeads: 3, attentionHeadDim: 32, numLayers: 4, patchSize: 4 },
      data: 'fashion-mnist',
      steps: 1_000_000,
      checkpointEvery: 2000,
      learningRate: 2e-3,
      warmup: 40,
      batch: 32,
      emaDecay: 0.99,
      predict: 'flow',
      keep: 1,
    },
    folder,
  );
  output.line(
    `training a DiT of ${figure(run.model.parameterCount() / 1e6)} million parameters on ${run.dataset.name}`,
  );
  const seconds = 60 * minutes;
  const progress = new Progress(output, { label: 'training', total: 0, seconds });
  const began = performance.now();
  const end = new AbortController();
  try {
    for await (const event of run.run(AbortSignal.any([signal, end.signal]))) {
      if (event.kind !== 'step') continue;
      progress.update(event.step, event);
      if (event.step % run.config.logEvery === 0) output.record(event);
      if (performance.now() - began > 1000 * seconds) end.abort();
    }
  } finally {
    progress.stop();
    await run.release();
  }
}

/** Every class at every guidance scale, from the same noise: rows are classes, columns scales. */
async function guidanceGrid(
  output: Output,
  label: string,
  folder: string,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const pipeline = await ClassConditionalPipeline.fromPretrained(folder);
  const classes = classesOf(pipeline).flatMap((label) => Array.from({ length: perScale }, () => label));
  const progress = new Progress(output, { label, total: guidanceScales.length * steps });
  const grids: Generated[] = [];
  for (const [i, scale] of guidanceScales.entries()) {
    const onStep = (done: number) => progress.update(i * steps + done);
    grids.push(await generate({ pipeline, classes, guidance: cfg(scale), steps, seed: 0, signal, onStep }));
  }
  progress.stop();
  const size = grids[0].images.data.length / classes.length;
  const rows = classesOf(pipeline).flatMap((_, row) =>
    grids.map(({ images: { data, shape } }) => ({
      dtype: 'float32' as const,
      shape: [perScale, ...shape.slice(1)],
      data: data.slice(row * perScale * size, (row + 1) * perScale * size),
    })),
  );
  const columnLabels = guidanceScales.flatMap((scale) => ['', `${scale}`, '']);
  const rowLabels = classesOf(pipeline).map((label) => classLabel(pipeline, label));
  await savePng(path, imageGrid(joined(rows), guidanceScales.length * perScale, { rowLabels, columnLabels, scale: 2 }));
}

async function animation(output: Output, path: string, signal: AbortSignal): Promise<void> {
  const pipeline = await ClassConditionalPipeline.fromPretrained(shippedCheckpoint);
  const progress = new Progress(output, { label: 'sampling the animation', total: 30 });
  const { steps: between } = await generate({
    pipeline,
    classes: classesOf(pipeline),
    guidance: cfg(3),
    steps: 30,
    seed: 1,
    keepSteps: true,
    signal,
    onStep: (done) => progress.update(done),
  });
  progress.stop();
  await animate(
    path,
    between.map(({ sample }) => imageGrid(sample, 5, { scale: 3 })),
  );
}

const classesOf = ({ model }: ClassConditionalPipeline): number[] =>
  Array.from({ length: model.nullClass ?? 0 }, (_, label) => label);
