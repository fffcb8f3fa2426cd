import { dirname } from 'node:path';
import { type Command, Option } from 'commander';
import { type NdArray, ndarray } from '../array/index.js';
import { imageGrid, type Raster } from '../io/index.js';
import { makeFolder, saveAnimation, savePng, writeSafetensors } from '../io/node/index.js';
import { addCommand, type Cli } from './command.js';
import { parseComposed } from './composed.js';
import { type ComputeOptions, deviceFlag, threadsFlag } from './computeFlags.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { classLabel, evenly, type Generated, generate, gridScale, joined } from './generate.js';
import { composedGuidance, guidersHelp, withGuidanceFlags } from './guidance.js';
import { interruptible } from './interrupt.js';
import { openGuider } from './openGuider.js';
import { openClassConditional, samplerFor } from './openPipeline.js';
import { duration, type Output } from './output.js';
import { shippedCheckpoint } from './package.js';
import { pictureNote } from './pictureNote.js';
import { Progress } from './progress.js';
import { fileName, number, type SamplerName, samplerNameOf, samplerNames, wholeNumber } from './values.js';

interface Options extends ComputeOptions {
  readonly classes: string;
  readonly perClass: number;
  readonly guidance: string;
  readonly guidanceLayers?: string;
  readonly guidanceInterval?: string;
  readonly guidanceRescale?: string;
  readonly weaker?: string;
  readonly classifier?: string;
  readonly sampler?: SamplerName | 'ode';
  readonly tolerance: number;
  readonly steps: number;
  readonly seed: number;
  readonly out: string;
  readonly saveTensor?: string;
  readonly trajectory?: string;
  readonly animation?: string;
}

export function defineSample(program: Command, cli: Cli): void {
  addCommand<Options>(
    program,
    cli,
    {
      name: 'sample',
      summary: 'make pictures with a run, or with the checkpoint that comes with noisewright',
      examples: [
        'sample',
        'sample runs/a --classes 0,3,7 --per-class 8 --guidance 3 --sampler ddim --steps 30 --out grid.png',
        'sample --classes "ankle boot,bag" --guidance cfg=4,interval=0.1:0.8 --animation boots.gif',
        'sample --guidance classifier=2 --classifier runs/clf     # as trained by train --model noisy-classifier',
        'sample runs/a --trajectory steps.png --save-tensor samples.safetensors',
        'sample ./DiT-XL-2-256 --classes "golden retriever,white shark" --per-class 2 --guidance 4   # latents, decoded',
      ],
    },
    (command) => {
      command
        .argument(
          '[run]',
          "folder of a run, or any class-conditional pipeline in diffusers' layout, or its id at the hub",
        )
        .option(
          '--classes <list>',
          'numbers or names, parted by commas; or all; several at once as bag+3, with weights as bag+3:0.5 (below 0: not)',
          'all',
        )
        .option('--per-class <n>', 'pictures of each class', wholeNumber('--per-class'), 8)
        .option(
          '--guidance <scale>',
          'classifier-free guidance: 0 is unconditional, 1 plainly conditional, more is stronger; or none, or like cfg=4,pag=2 (below)',
          '3',
        )
        .option('--guidance-layers <list>', 'layers that pag, slg, seg and auto perturb, by number or part of the name')
        .option('--guidance-interval <from:to>', 'guide between these shares of the run only, like 0.1:0.8')
        .option('--guidance-rescale <share>', 'bring the contrast of guided predictions back by this share')
        .option('--weaker <run>', 'a smaller or less trained run for the guider auto to move away from')
        .option('--classifier <run>', 'of noisy pictures, for the guider classifier')
        .addOption(
          new Option(
            '--sampler <name>',
            'default: the one that fits what the model predicts; ode: the probability flow, in adaptive steps',
          ).choices([...samplerNames, 'ode']),
        )
        .option('--steps <n>', 'steps of the sampler', wholeNumber('--steps'), 30)
        .option('--tolerance <x>', 'error of one step of the sampler ode', number('--tolerance'), 1e-3)
        .option('--seed <n>', 'of the noise', wholeNumber('--seed', 0), 0)
        .option('--out <file>', 'the labelled grid', fileName('--out', '.png'), 'grid.png')
        .option(
          '--save-tensor <file>',
          'also write the pictures as a .safetensors file: samples [N, C, H, W] as the sampler left them, -1 black to 1 white and a little beyond, classes [N]',
          fileName('--save-tensor', '.safetensors'),
        )
        .option(
          '--trajectory <file>',
          'also show, for one picture of each class, the estimate of the final picture on the way',
          fileName('--trajectory', '.png'),
        )
        .option(
          '--animation <file>',
          'also write the denoising as a .gif or .webp',
          fileName('--animation', '.gif', '.webp'),
        )
        .addOption(deviceFlag())
        .addOption(threadsFlag())
        .addHelpText('after', guidersHelp);
    },
    runSample,
  );
}

async function runSample(
  output: Output,
  options: Options,
  [run = shippedCheckpoint]: readonly string[],
): Promise<ExitCode> {
  const { perClass, steps, seed, device, threads } = options;
  const { guidanceLayers: layers, guidanceInterval: interval, guidanceRescale: rescale } = options;
  const guidanceText = withGuidanceFlags(options.guidance, { layers, interval, rescale });
  const pipeline = await openClassConditional(output, run);
  const { model } = pipeline;
  const ode = options.sampler === 'ode';
  const named = options.sampler === 'ode' ? undefined : options.sampler;
  const sampler = samplerFor(pipeline, steps, named);
  if (ode && (options.trajectory || options.animation))
    throw new UsageError('--sampler ode: its steps are of any length; leave out --trajectory and --animation');
  if (!(options.tolerance > 0))
    throw new UsageError(`--tolerance: expected a number above 0, got ${options.tolerance}`);
  for (const path of [options.out, options.saveTensor, options.trajectory, options.animation])
    if (path !== undefined) await makeFolder(dirname(path)); // not found out after minutes of sampling
  const composes = options.classes.includes('+');
  const beside = ode ? '--sampler ode' : options.classifier ? '--classifier' : options.weaker ? '--weaker' : undefined;
  if (composes && beside) throw new UsageError(`${beside}: goes without classes joined by +`);
  const alone = composes ? undefined : await openGuider(guidanceText, pipeline, sampler, options);
  const { nullClass: classes = alone?.numClasses } = model;
  if (classes === undefined) throw new Error(`${run}: this model takes no classes`);
  const asked = parseComposed(options.classes, pipeline.classNames, classes, (label) => classLabel(pipeline, label));
  const guidance = alone ?? composedGuidance(guidanceText, asked.weights);
  const { labels, names } = asked;

  const eachOf = (list: readonly number[]) => list.flatMap((label) => repeated(label, perClass));
  const began = performance.now();
  const progress = new Progress(output, { label: 'sampling', total: steps });
  const generated = await interruptible((signal) =>
    generate({
      pipeline,
      classes: eachOf(labels),
      ...(asked.further && {
        conditions: Object.fromEntries(Object.entries(asked.further).map(([name, list]) => [name, eachOf(list)])),
      }),
      guidance,
      sampler,
      steps,
      ...(ode && { tolerance: options.tolerance }),
      seed,
      compile: { device, threads },
      keepSteps: options.trajectory !== undefined || options.animation !== undefined,
      onStep: (done, total) => progress.update((done / total) * steps),
      signal,
    }),
  ).finally(() => progress.stop());
  const seconds = (performance.now() - began) / 1000;

  const settings = {
    model: run,
    classes: options.classes,
    guidance: guidanceText,
    sampler: ode ? 'ode' : sampler.className,
    steps: ode ? generated.evaluations : steps,
    ...(ode && { tolerance: options.tolerance }),
    seed,
  };
  const files = await write(generated, { ...options, labels, names, note: pictureNote(settings) });
  const count = `${labels.length * perClass} pictures in ${duration(seconds)}`;
  const how = ode ? `ode, ${generated.evaluations} calls` : `${samplerNameOf(sampler)}, ${steps} steps`;
  output.line(`${count} (${how}, guidance ${guidanceText}, seed ${seed})`);
  for (const [what, path] of Object.entries(files)) output.line(`${`${what}:`.padEnd(11)} ${path}`);
  const name = ode ? 'ode' : samplerNameOf(sampler);
  output.record({ kind: 'samples', ...settings, sampler: name, labels, perClass, seconds, files });
  return exitCodes.ok;
}

interface Files extends Pick<Options, 'out' | 'saveTensor' | 'trajectory' | 'animation' | 'perClass'> {
  readonly labels: readonly number[];
  readonly names: readonly string[];
  readonly note: ReturnType<typeof pictureNote>;
}

/** Writes what was asked for and says where it is. */
async function write({ images, steps, decode }: Generated, files: Files): Promise<Record<string, string>> {
  const { out, saveTensor, trajectory, animation, perClass, labels, names, note } = files;
  const layout = { rowLabels: names, scale: gridScale(images.shape[2]) };
  const grid = (of: typeof images): Raster => imageGrid(of, perClass, layout);
  const written: Record<string, string> = { grid: out };
  await savePng(out, grid(images), note);
  if (saveTensor) {
    const classes = ndarray(
      labels.flatMap((label) => repeated(label, perClass)),
      undefined,
      'int64',
    );
    await writeSafetensors(saveTensor, { samples: images, classes }, note);
    written.tensor = saveTensor;
  }
  if (trajectory) {
    const shown = evenly(steps.length, Math.min(10, steps.length));
    const picture = (row: number, step: number) => nth(steps[step - 1].x0, row * perClass);
    const pictures = await decode(joined(labels.flatMap((_, row) => shown.map((step) => picture(row, step)))));
    const columnLabels = shown.map(String);
    await savePng(trajectory, imageGrid(pictures, shown.length, { ...layout, columnLabels }), note);
    written.trajectory = trajectory;
  }
  if (animation) {
    const frames: Raster[] = [];
    for (const { sample } of steps) frames.push(grid(await decode(sample)));
    await animate(animation, frames);
    written.animation = animation;
  }
  return written;
}

const repeated = (label: number, count: number): number[] => Array.from({ length: count }, () => label);

/** The n-th picture of a batch, as a batch of one. */
function nth({ data, shape: [count, ...shape] }: NdArray<'float32'>, n: number): NdArray<'float32'> {
  const size = data.length / count;
  return ndarray(data.slice(n * size, (n + 1) * size), [1, ...shape]);
}

/** The last frame stays for two seconds. */
export const animate = (path: string, frames: readonly Raster[]): Promise<void> =>
  saveAnimation(
    path,
    frames,
    frames.map((_, i) => (i === frames.length - 1 ? 2000 : 100)),
  );
