import type { LearningEvent } from '../training/node/index.js';
import { type ExitCode, exitCodes, UsageError } from './exitCodes.js';
import { interruptible } from './interrupt.js';
import { duration, type Output, shellWord } from './output.js';
import { Progress } from './progress.js';
import { flagName } from './schemaFlags.js';
import { self } from './self.js';

/** What the command line needs to know of a run. */
export interface CliRun<E> {
  readonly folder: string;
  readonly config: { readonly steps: number; readonly logEvery: number };
  readonly session: { readonly step: number };
  run(signal: AbortSignal): AsyncIterable<E>;
  release(): Promise<void>;
}

export interface TrainLoopOptions<E> {
  /** Of the command that continues the run. */
  readonly command: string;
  /** What there is to say or do after an event that is neither a step nor a checkpoint. */
  readonly onEvent?: (event: Exclude<E, LearningEvent>, progress: Progress, signal: AbortSignal) => Promise<void>;
  /** A command that shows what was trained. */
  readonly show: string;
}

/** Trains a run with progress on the terminal, records for `--json`, and a checkpoint at Ctrl-C. */
export async function trainLoop<E extends { readonly kind: string }>(
  output: Output,
  run: CliRun<LearningEvent | E>,
  { command, onEvent, show }: TrainLoopOptions<LearningEvent | E>,
): Promise<ExitCode> {
  const { config, session, folder } = run;
  if (session.step >= config.steps) {
    output.line(`${folder} has all its ${config.steps} steps; continue it with --steps N, N larger than that`);
    output.record({ kind: 'done', step: session.step, folder });
    return exitCodes.ok;
  }
  if (session.step > 0) output.line(`continuing after step ${session.step}`);
  const progress = new Progress(output, { label: 'training', total: config.steps, done: session.step });
  const onInterrupt = () => progress.log('interrupted: finishing the step and saving; Ctrl-C again leaves at once');
  const began = performance.now();
  const interrupted = await interruptible(async (signal) => {
    try {
      for await (const event of run.run(signal)) {
        if (isStep(event)) progress.update(event.step, event);
        if (isCheckpoint(event)) progress.log(`saved ${event.path}`);
        if (!isStep(event) || event.step % config.logEvery === 0) output.record(event);
        if (!isStep(event) && !isCheckpoint(event))
          await onEvent?.(event as Exclude<E, LearningEvent>, progress, signal);
      }
    } finally {
      progress.stop();
      await run.release();
    }
    return signal.aborted;
  }, onInterrupt);

  if (interrupted) {
    const resume = `${self()} ${command} --resume ${shellWord(folder)}`;
    output.line(`stopped after step ${session.step}; continue with:\n  ${resume}`);
    output.record({ kind: 'interrupted', step: session.step, resume });
    return exitCodes.interrupted;
  }
  output.line(`done: step ${session.step}, ${duration((performance.now() - began) / 1000)}. Look at it with:`);
  output.line(`  ${self()} ${show}`);
  output.record({ kind: 'done', step: session.step, folder });
  return exitCodes.ok;
}

const isStep = (event: { readonly kind: string }): event is Extract<LearningEvent, { kind: 'step' }> =>
  event.kind === 'step';
const isCheckpoint = (event: { readonly kind: string }): event is Extract<LearningEvent, { kind: 'checkpoint' }> =>
  event.kind === 'checkpoint';

/** Says which pictures were left out. */
export function reportSkipped(output: Output, skipped: readonly string[] = []): void {
  for (const reason of skipped.slice(0, 10)) output.line(`left out: ${reason}`);
  if (skipped.length > 10) output.line(`left out: ${skipped.length - 10} more`);
}

/**
 * Opens a new run from its flags, or an earlier one.
 * @param given the flags that are settings of a run.
 * @throws UsageError when a run that is continued is given other settings than `steps`.
 */
export async function openRun<R>(
  { out, resume }: { readonly out?: string; readonly resume?: string },
  given: Readonly<Record<string, unknown>>,
  make: {
    create(folder: string): Promise<R>;
    resume(folder: string, changes: { steps?: number }): Promise<R>;
  },
): Promise<R> {
  if (resume === undefined) {
    if (out === undefined) throw new UsageError('--out is missing: the folder of the new run, such as runs/a');
    return make.create(out);
  }
  const { steps, ...others } = given;
  const odd = out === undefined ? Object.keys(others)[0] : 'out';
  if (odd) throw new UsageError(`--resume takes everything but --steps from the run; leave out ${flagName(odd)}`);
  if (steps !== undefined && !(Number.isInteger(steps) && (steps as number) > 0))
    throw new UsageError(`--steps: expected a whole number of at least 1, got ${steps}`);
  return make.resume(resume, steps === undefined ? {} : { steps: steps as number });
}
