import type { Command } from 'commander';
import { reflowTraining } from '../pipelines/index.js';
import { ReflowRun } from '../pipelines/node/index.js';
import { addCommand, type Cli } from './command.js';
import { type ExitCode, UsageError } from './exitCodes.js';
import { figure, type Output, shellWord } from './output.js';
import { shippedCheckpoint } from './package.js';
import { Progress } from './progress.js';
import { addFolderFlags, learningFlags, type RunOptions } from './runFlags.js';
import { type FlagGroups, SchemaFlags } from './schemaFlags.js';
import { openRun, trainLoop } from './trainLoop.js';

const groups: FlagGroups = [
  [
    'Pairs:',
    {
      pairs: 'how many pairs of noise and sample the run makes; they are kept in cache/ of the new run',
      pairSteps: 'steps of the solver for each',
      pairSampler: 'the solver',
      pairGuidance:
        'classifier-free guidance to make them with: the new run then has it built in, and is sampled without',
      conditionDropout: 'share of pairs without a class, so that the new run can be guided itself',
      timestepDensity: 'how often each noise level is trained',
      data: 'real pictures that eval compares with; default: what the run was trained on',
      size: 'of those',
    },
  ],
  ...learningFlags,
];
export const reflowFlags = new SchemaFlags(reflowTraining);

export function defineReflow(program: Command, cli: Cli): void {
  addCommand<RunOptions>(
    program,
    cli,
    {
      name: 'reflow',
      summary: 'straighten the flow of a run (train --predict flow), to sample it in a few steps',
      examples: [
        'reflow runs/a --pairs 10000 --pair-guidance 1.5 --steps 1000 --out runs/b',
        'sample runs/b --guidance none --steps 2',
        'reflow --pairs 2000 --out runs/b         # of the checkpoint that comes with noisewright',
        'reflow --resume runs/b --steps 2000',
      ],
    },
    (command) => {
      addFolderFlags(
        command.argument('[run]', 'folder of the run; default: the checkpoint that comes with noisewright'),
      );
      reflowFlags.addTo(command, groups);
    },
    reflow,
  );
}

export async function reflow(
  output: Output,
  { out, resume, ...options }: RunOptions,
  [teacher]: readonly string[] = [],
): Promise<ExitCode> {
  const given = reflowFlags.given(options);
  if (resume !== undefined && teacher !== undefined)
    throw new UsageError(`--resume takes everything but --steps from the run; leave out ${teacher}`);
  const run = await openRun({ out, resume }, given, {
    create: (folder) =>
      ReflowRun.create(reflowFlags.parse({ ...given, teacher: teacher ?? shippedCheckpoint }), folder),
    resume: (folder, changes) => ReflowRun.resume(folder, changes),
  });
  const { config, folder, model } = run;
  output.line(
    `${figure(model.parameterCount() / 1e6)} million parameters; ${config.pairs} pairs, ${config.pairSteps} steps of ${config.pairSampler} each`,
  );
  let drawing: Progress | undefined;
  run.onPreparing = (done, total) => {
    drawing ??= new Progress(output, { label: 'drawing pairs', total });
    drawing.update(done);
    if (done === total) drawing.stop();
  };
  const guidance = config.conditionDropout > 0 ? '3' : 'none';
  return trainLoop(output, run, {
    command: 'reflow',
    show: `sample ${shellWord(folder)} --guidance ${guidance} --steps 2`,
  });
}
