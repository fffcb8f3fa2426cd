import type { z } from 'zod';
import type { Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { fingerprint } from '../../io/node/index.js';
import type { LearningSession } from '../learning.js';
import { type LearningEvent, RunFolder, type RunPlan, type RunSettings } from './runFolder.js';

/** What a class of runs says of itself, for {@link FolderRun.create} and {@link FolderRun.resume}. */
interface RunClass<C, O, R> {
  readonly settings: z.ZodType<C, O>;
  /** Loads data and models. @returns a run at its start. */
  open(files: RunFolder, config: C): Promise<R>;
  /** Checks and completes the settings of a new run. */
  begin?(config: C): C | Promise<C>;
  /** The model that training begins with, which must be the same when it is continued. */
  source?(config: C): string | undefined;
}

/** A training run in a folder, see {@link RunFolder}: what all kinds of runs do alike. */
export abstract class FolderRun<C extends RunSettings, E = never, S extends LearningSession = LearningSession> {
  /** What is written beside the first checkpoint, by name. */
  protected abstract readonly product: string;

  protected constructor(
    protected readonly files: RunFolder,
    readonly config: C,
    readonly session: S,
  ) {}

  /**
   * A new run; its folder is made by {@link run}.
   * @throws Error when the folder holds one already, TypeError for a wrong config, and for data and models that cannot be
   * opened or do not fit (named).
   */
  static async create<C extends RunSettings, O, R>(this: RunClass<C, O, R>, options: O, folder: string): Promise<R> {
    // biome-ignore lint/complexity/noThisInStatic: the class that was asked
    const { settings, begin, source, open } = this;
    const config = settings.parse(options);
    const files = new RunFolder(folder);
    await files.checkVacant();
    const whole = (await begin?.(config)) ?? config;
    const model = source?.(whole);
    return open(files, model === undefined ? whole : { ...whole, fingerprint: await fingerprint(model) });
  }

  /**
   * Continues a run from its last checkpoint, or from its start when it has none yet.
   * @param changes `steps` is the new total.
   * @throws Error when there is no run, it is damaged (named), or the model that it began with is another one now.
   */
  static async resume<C extends RunSettings & { readonly fingerprint?: string }, O, R extends FolderRun<C, unknown>>(
    this: RunClass<C, O, R>,
    folder: string,
    changes: { steps?: number } = {},
  ): Promise<R> {
    // biome-ignore lint/complexity/noThisInStatic: the class that was asked
    const { settings, source, open } = this;
    const files = new RunFolder(folder);
    const config = await files.settings<C>(settings);
    const model = source?.(config);
    if (model !== undefined && (await fingerprint(model)) !== config.fingerprint)
      throw new Error(`${model}: not the model that ${folder} began with: its files have changed`);
    const run = await open(files, { ...config, ...changes });
    await files.restore(run.session, run.product);
    return run;
  }

  get folder(): string {
    return this.files.path;
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * Nothing is written before the first step is done.
   * @throws Error when data cannot be read (named) or another process trains this run; DivergedError; AbortError while
   * what training needs is made ready.
   */
  run(signal?: AbortSignal): AsyncGenerator<LearningEvent | E, void, undefined> {
    const plan: RunPlan<E> = {
      session: this.session,
      settings: this.config,
      batches: () => this.batches(signal),
      write: (folder) => this.write(folder),
      begin: (folder) => this.begin(folder),
      after: (step, saved) => this.after(step, saved, signal),
    };
    return this.files.train<E>(plan, signal);
  }

  /** As {@link RunPlan}'s. */
  protected abstract batches(signal?: AbortSignal): ReturnType<RunPlan<E>['batches']>;
  protected abstract write(folder: string): Promise<void>;
  protected async begin(_folder: string): Promise<void> {}
  protected async *after(_step: number, _saved: boolean, _signal?: AbortSignal): AsyncGenerator<E, void, undefined> {}

  release(): Promise<void> {
    return this.session.release();
  }
}

/** Which pictures a run learns from. */
export interface PictureSettings {
  readonly data: string;
  readonly size?: number;
  readonly skipCorrupt: boolean;
}

/** Where a measure was taken. */
export interface Measured {
  readonly step: number;
  readonly split: 'train' | 'test';
}

/** A run that learns from pictures, and may ask what it trained about others. */
export abstract class PictureRun<
  C extends RunSettings & PictureSettings,
  E = never,
  S extends LearningSession = LearningSession,
> extends FolderRun<C, E, S> {
  private heldOut?: Dataset;

  protected constructor(
    files: RunFolder,
    config: C,
    session: S,
    /** Pictures, also where the model is one of latents. */
    readonly dataset: Dataset,
  ) {
    super(files, config, session);
  }

  /**
   * Measures something on pictures that were not trained on, if there are any, and notes it in metrics.jsonl.
   * @returns undefined when it was aborted.
   */
  protected async measured<T extends object>(
    step: number,
    measure: (pictures: Dataset) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<(Measured & T) | undefined> {
    const { data, size, skipCorrupt } = this.config;
    this.heldOut ??= await openDataset(data, { size, skipCorrupt, split: 'test' }).catch(() => this.dataset);
    const report = await measure(this.heldOut).catch((error) => {
      if (!signal?.aborted) throw error;
    });
    if (!report) return undefined;
    const line = { step, split: this.heldOut === this.dataset ? ('train' as const) : ('test' as const), ...report };
    await this.files.note(line);
    return line;
  }
}
