import { appendFile, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import {
  lock,
  pathExists,
  readJson,
  readSafetensors,
  writeFileAtomic,
  writeFolderAtomic,
  writeJson,
  writeSafetensors,
} from '../../io/node/index.js';
import type { LearningBatch, LearningSession, TrainEvent } from '../learning.js';

/** What every training reports. */
export type LearningEvent =
  | ({ readonly kind: 'step' } & TrainEvent)
  | { readonly kind: 'checkpoint'; readonly step: number; readonly path: string };

/** The part of a run's settings that its folder needs. */
export interface RunSettings {
  readonly steps: number;
  readonly checkpointEvery: number;
  /** How many checkpoints to keep. */
  readonly keep: number;
  readonly logEvery: number;
}

export interface RunPlan<E> {
  readonly session: LearningSession;
  /** All settings, as run.json keeps them. */
  readonly settings: RunSettings;
  /** From the session's position on. What has to be made ready for them first is made here: it does not count as training. */
  readonly batches: () => AsyncIterable<LearningBatch> | Promise<AsyncIterable<LearningBatch>>;
  /** Writes the weights for use into a folder: a checkpoint's, then the run's own. */
  readonly write: (folder: string) => Promise<void>;
  /** Writes what training does not change into the run's folder, before its first checkpoint. */
  readonly begin?: (folder: string) => Promise<void>;
  /** What follows a step. @param saved whether a checkpoint was written after it. */
  readonly after?: (step: number, saved: boolean) => AsyncIterable<E>;
}

const checkpointInfo = z.strictObject({
  step: z.number().int().min(0),
  position: z.strictObject({ epoch: z.number().int().min(0), index: z.number().int().min(0) }),
  /** Seconds spent in training steps so far. */
  seconds: z.number().min(0),
});
type CheckpointInfo = z.output<typeof checkpointInfo>;

const checkpointName = (step: number): string => `step-${String(step).padStart(7, '0')}`;

/**
 * A training run in a folder, whatever is trained:
 * - `run.json`: its settings; `metrics.jsonl`: one line per logged step;
 * - the latest weights for use, as the run's `write` lays them out;
 * - `checkpoints/step-N/`: the same with `training.safetensors` and `training.json`, from which training continues bit for bit.
 * A checkpoint is written aside and renamed, so a process killed at any moment leaves the one before it.
 * While it trains, `train.lock` keeps other processes of the machine away.
 */
export class RunFolder {
  private seconds = 0;

  constructor(readonly path: string) {}

  /** @throws Error when the folder holds a run already. */
  async checkVacant(): Promise<void> {
    if (await pathExists(join(this.path, 'run.json')))
      throw new Error(
        `${this.path} already holds a training run: continue it with --resume ${this.path}, or choose another folder`,
      );
  }

  /** run.json. @throws Error when there is no run, or its settings do not fit the schema (named). */
  async settings<C>(schema: z.ZodType<C>): Promise<C> {
    const path = join(this.path, 'run.json');
    if (!(await pathExists(path))) throw new Error(`${this.path}: no training run here (run.json is missing)`);
    return readJson(path, schema);
  }

  /**
   * Takes a session to the last checkpoint, or leaves it at its start when there is none yet.
   * @param product what the run writes beside its first checkpoint: without a checkpoint it must not be there.
   * @throws Error when the last checkpoint is damaged (named).
   */
  async restore(session: LearningSession, product: string): Promise<void> {
    const [last, earlier] = (await this.checkpoints()).reverse();
    if (last === undefined) {
      if (await pathExists(join(this.path, product)))
        throw new Error(
          `${this.path}: there are weights, but no checkpoint to continue from: begin a new run in another folder`,
        );
      return;
    }
    const path = join(this.path, 'checkpoints', last);
    try {
      const info = await readJson<CheckpointInfo>(join(path, 'training.json'), checkpointInfo);
      const { tensors } = await readSafetensors(join(path, 'training.safetensors'));
      session.restore(tensors, info.step, info.position);
      this.seconds = info.seconds;
    } catch (cause) {
      if (earlier === undefined) throw cause;
      throw new Error(`${(cause as Error).message}; remove ${path} to continue from ${earlier}`, { cause });
    }
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * Nothing is written before the first step is done.
   * @throws Error when another process trains this run; DivergedError.
   */
  async *train<E = never>(plan: RunPlan<E>, signal?: AbortSignal): AsyncGenerator<LearningEvent | E, void, undefined> {
    const unlock = await lock(join(this.path, 'train.lock'), `the run ${this.path}`);
    try {
      yield* this.steps(plan, signal);
    } finally {
      await unlock();
    }
  }

  private async *steps<E>(plan: RunPlan<E>, signal?: AbortSignal): AsyncGenerator<LearningEvent | E, void, undefined> {
    const { session, settings, batches, after } = plan;
    const { steps, checkpointEvery, logEvery } = settings;
    const first = session.step;
    let saved = first;
    for await (const event of session.learn(await batches())) {
      this.seconds += event.milliseconds / 1000;
      const { step } = event;
      if (step === first + 1) await this.begin(first, plan);
      if (step % logEvery === 0 || step === steps) await this.log(event);
      yield { kind: 'step', ...event };
      const due = step % checkpointEvery === 0 || step === steps || signal?.aborted === true;
      if (due) {
        yield { kind: 'checkpoint', step, path: await this.save(plan) };
        saved = step;
      }
      if (after) yield* after(step, due);
      if (signal?.aborted) break;
    }
    if (saved !== session.step) yield { kind: 'checkpoint', step: session.step, path: await this.save(plan) };
  }

  /** Puts the folder in order: settings, no metrics of steps that are done again, nothing half written. */
  private async begin<E>(step: number, { settings, begin }: RunPlan<E>): Promise<void> {
    await writeJson(join(this.path, 'run.json'), settings);
    await this.forgetMetricsAfter(step);
    const checkpoints = join(this.path, 'checkpoints');
    for (const name of await readdir(checkpoints).catch(() => []))
      if (/^\.step-\d+\..*\.tmp$/.test(name)) await rm(join(checkpoints, name), { recursive: true, force: true });
    if (step === 0) await begin?.(this.path);
  }

  /** Writes a checkpoint, makes it the run's model, and removes the oldest ones. */
  private async save<E>({ session, settings, write }: RunPlan<E>): Promise<string> {
    const path = join(this.path, 'checkpoints', checkpointName(session.step));
    const info: CheckpointInfo = { step: session.step, position: session.position, seconds: this.seconds };
    await writeFolderAtomic(path, async (aside) => {
      await write(aside);
      await writeSafetensors(join(aside, 'training.safetensors'), await session.state());
      await writeJson(join(aside, 'training.json'), info);
    });
    await write(this.path);
    const names = await this.checkpoints();
    for (const name of names.slice(0, Math.max(0, names.length - settings.keep)))
      await rm(join(this.path, 'checkpoints', name), { recursive: true, force: true });
    return path;
  }

  /** Whole checkpoints, oldest first. */
  private async checkpoints(): Promise<string[]> {
    const names = await readdir(join(this.path, 'checkpoints')).catch(() => []);
    return names.filter((name) => /^step-\d+$/.test(name)).sort();
  }

  /** A line of metrics.jsonl. */
  async note(line: object): Promise<void> {
    await appendFile(join(this.path, 'metrics.jsonl'), `${JSON.stringify(line)}\n`);
  }

  private log({ step, loss, gradientNorm, learningRate, milliseconds, images }: TrainEvent): Promise<void> {
    const imagesPerSecond = (images / milliseconds) * 1000;
    return this.note({ step, loss, gradientNorm, learningRate, imagesPerSecond, seconds: this.seconds });
  }

  /** Steps after the checkpoint will be done again, and logged again. */
  private async forgetMetricsAfter(step: number): Promise<void> {
    const path = join(this.path, 'metrics.jsonl');
    const lines = (await readFile(path, 'utf8').catch(() => '')).split('\n');
    const kept = lines.filter((line) => line !== '' && stepOf(line) <= step);
    await writeFileAtomic(path, new TextEncoder().encode(kept.map((line) => `${line}\n`).join('')));
  }
}

/** A line cut short by a kill counts as not written. */
const stepOf = (line: string): number => {
  try {
    return (JSON.parse(line) as { step: number }).step;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
};
