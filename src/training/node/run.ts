import { appendFile, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
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
import { EncoderUNet, trainableClass } from '../../models/index.js';
import { Generator } from '../../random/index.js';
import { type TrainConfig, type TrainOptions, trainConfig } from '../config.js';
import { type AccuracyByNoise, accuracyByNoise, checkClassifierConfig } from '../noisyClassifier.js';
import { samplerConfigOf } from '../samplerConfig.js';
import { processOf, type TrainEvent, TrainingSession } from '../session.js';
import type { NoisyImageModel } from '../step.js';
import { writePipelineFolder } from './pipelineFolder.js';

/** What a run reports while it trains. */
export type RunEvent =
  | ({ readonly kind: 'step' } & TrainEvent)
  | { readonly kind: 'checkpoint'; readonly step: number; readonly path: string }
  | ({ readonly kind: 'accuracy'; readonly step: number; readonly split: 'test' | 'train' } & AccuracyByNoise)
  | { readonly kind: 'preview'; readonly step: number };

const checkpointInfo = z.strictObject({
  step: z.number().int().min(0),
  position: z.strictObject({ epoch: z.number().int().min(0), index: z.number().int().min(0) }),
  /** Seconds spent in training steps so far. */
  seconds: z.number().min(0),
});
type CheckpointInfo = z.output<typeof checkpointInfo>;

const checkpointName = (step: number): string => `step-${String(step).padStart(7, '0')}`;

/**
 * A training run in a folder:
 * - `run.json`: its {@link TrainConfig}; `metrics.jsonl`: one line per logged step;
 * - `model_index.json`, `transformer/`, `unet/` or `classifier/`, `scheduler/`: the latest averaged weights, as diffusers
 *   lays them out;
 * - `checkpoints/step-N/`: the same with `training.safetensors` and `training.json`, from which training continues bit for bit.
 * A checkpoint is written aside and renamed, so a process killed at any moment leaves the one before it.
 * While it trains, `train.lock` keeps other processes of the machine away.
 */
export class TrainingRun {
  private seconds = 0;
  private heldOut?: Dataset;

  private constructor(
    readonly folder: string,
    readonly config: TrainConfig,
    readonly dataset: Dataset,
    readonly session: TrainingSession,
  ) {}

  get model(): NoisyImageModel {
    return this.session.model;
  }

  /** A new run; its folder is made by {@link run}. @throws Error when the folder holds one already, TypeError for a wrong config. */
  static async create(options: TrainOptions, folder: string): Promise<TrainingRun> {
    const config = trainConfig.parse(options);
    if (await pathExists(join(folder, 'run.json')))
      throw new Error(
        `${folder} already holds a training run: continue it with --resume ${folder}, or choose another folder`,
      );
    return TrainingRun.open(folder, config);
  }

  /**
   * Continues a run from its last checkpoint, or from its start when it has none yet.
   * @param changes `steps` is the new total.
   * @throws Error when there is no run, or its last checkpoint is damaged (named).
   */
  static async resume(folder: string, changes: { steps?: number } = {}): Promise<TrainingRun> {
    if (!(await pathExists(join(folder, 'run.json'))))
      throw new Error(`${folder}: no training run here (run.json is missing)`);
    const config = { ...(await readJson(join(folder, 'run.json'), trainConfig as z.ZodType<TrainConfig>)), ...changes };
    const run = await TrainingRun.open(folder, config);
    const [last, earlier] = (await run.checkpoints()).reverse();
    if (last !== undefined) await run.restore(last, earlier);
    else if (await pathExists(join(folder, 'model_index.json')))
      throw new Error(
        `${folder}: there are weights, but no checkpoint to continue from: begin a new run in another folder`,
      );
    return run;
  }

  private async restore(checkpoint: string, earlier?: string): Promise<void> {
    const path = join(this.folder, 'checkpoints', checkpoint);
    try {
      const info = await readJson<CheckpointInfo>(join(path, 'training.json'), checkpointInfo);
      const { tensors } = await readSafetensors(join(path, 'training.safetensors'));
      this.session.restore(tensors, info.step, info.position);
      this.seconds = info.seconds;
    } catch (cause) {
      if (earlier === undefined) throw cause;
      throw new Error(`${(cause as Error).message}; remove ${path} to continue from ${earlier}`, { cause });
    }
  }

  private static async open(folder: string, config: TrainConfig): Promise<TrainingRun> {
    const { data, size, skipCorrupt } = config;
    if (config.model === EncoderUNet.className) checkClassifierConfig(config);
    const dataset = await openDataset(data, { size, skipCorrupt });
    const [channels, height, width] = dataset.shape;
    if (height !== width)
      throw new RangeError(`${data}: images are ${height}x${width}; give --size to make them square`);
    const format = { channels, size: height, classes: dataset.classNames.length };
    const modelConfig = { ...(config.learnVariance && { outChannels: 2 * channels }), ...config.modelConfig };
    const model = trainableClass(config.model).create(modelConfig, format, new Generator(config.seed));
    const resolved = { ...config, modelConfig: { ...model.config } };
    return new TrainingRun(folder, resolved, dataset, new TrainingSession(model, resolved));
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * Nothing is written before the first step is done.
   * @throws Error when another process trains this run; DivergedError.
   */
  async *run(signal?: AbortSignal): AsyncGenerator<RunEvent, void, undefined> {
    const unlock = await lock(join(this.folder, 'train.lock'), `the run ${this.folder}`);
    try {
      yield* this.train(signal);
    } finally {
      await unlock();
    }
  }

  private async *train(signal?: AbortSignal): AsyncGenerator<RunEvent, void, undefined> {
    const { session, config } = this;
    const { batch, seed, flip, steps, checkpointEvery, logEvery, sampleEvery } = config;
    const first = session.step;
    let saved = first;
    const source = batches(this.dataset, { batch, seed, flip, position: session.position });
    for await (const event of session.run(source)) {
      this.seconds += event.milliseconds / 1000;
      const { step } = event;
      if (step === first + 1) await this.begin(first);
      if (step % logEvery === 0 || step === steps) await this.log(event);
      yield { kind: 'step', ...event };
      if (step % checkpointEvery === 0 || step === steps || signal?.aborted) {
        yield { kind: 'checkpoint', step, path: await this.save() };
        saved = step;
        if (!signal?.aborted) yield* this.judge(step, signal);
      }
      if (sampleEvery > 0 && step % sampleEvery === 0) yield { kind: 'preview', step };
      if (signal?.aborted) break;
    }
    if (saved !== session.step) yield { kind: 'checkpoint', step: session.step, path: await this.save() };
  }

  /** Puts the folder in order: settings, no metrics of steps that are done again, nothing half written. */
  private async begin(step: number): Promise<void> {
    await writeJson(join(this.folder, 'run.json'), this.config);
    await this.forgetMetricsAfter(step);
    const checkpoints = join(this.folder, 'checkpoints');
    for (const name of await readdir(checkpoints).catch(() => []))
      if (/^\.step-\d+\..*\.tmp$/.test(name)) await rm(join(checkpoints, name), { recursive: true, force: true });
  }

  /** A classifier of noisy images is asked about some that it was not trained on, if there are any. */
  private async *judge(step: number, signal?: AbortSignal): AsyncGenerator<RunEvent, void, undefined> {
    const { session, config } = this;
    if (!(session.model instanceof EncoderUNet)) return;
    const { data, size, skipCorrupt, device, threads } = config;
    this.heldOut ??= await openDataset(data, { size, skipCorrupt, split: 'test' }).catch(() => this.dataset);
    const twin = new EncoderUNet(session.model.config, new Generator(0));
    twin.loadStateDict(await session.averagedState());
    const compile = { device, threads };
    const options = { count: Math.min(1000, this.heldOut.length), signal, compile };
    const accuracy = await accuracyByNoise(twin, this.heldOut, processOf(config), options).catch((error) => {
      if (!signal?.aborted) throw error;
    });
    if (!accuracy) return;
    const line = { step, split: this.heldOut === this.dataset ? 'train' : 'test', ...accuracy } as const;
    await appendFile(join(this.folder, 'metrics.jsonl'), `${JSON.stringify(line)}\n`);
    yield { kind: 'accuracy', ...line };
  }

  /** Writes a checkpoint, makes it the run's model, and removes the oldest ones. */
  private async save(): Promise<string> {
    const { session, config, folder } = this;
    const path = join(folder, 'checkpoints', checkpointName(session.step));
    const info: CheckpointInfo = { step: session.step, position: session.position, seconds: this.seconds };
    await writeFolderAtomic(path, async (aside) => {
      await this.writePipeline(aside);
      await writeSafetensors(join(aside, 'training.safetensors'), await session.state());
      await writeJson(join(aside, 'training.json'), info);
    });
    await this.writePipeline(folder);
    const names = await this.checkpoints();
    for (const name of names.slice(0, Math.max(0, names.length - config.keep)))
      await rm(join(folder, 'checkpoints', name), { recursive: true, force: true });
    return path;
  }

  /** Whole checkpoints, oldest first. */
  private async checkpoints(): Promise<string[]> {
    const names = await readdir(join(this.folder, 'checkpoints')).catch(() => []);
    return names.filter((name) => /^step-\d+$/.test(name)).sort();
  }

  private async writePipeline(folder: string): Promise<void> {
    const { model, session, config, dataset } = this;
    const scheduler = samplerConfigOf(config);
    await writePipelineFolder(folder, {
      model,
      weights: await session.averagedState(),
      scheduler,
      classNames: dataset.classNames,
    });
  }

  private async log({ step, loss, gradientNorm, learningRate, milliseconds, images }: TrainEvent): Promise<void> {
    const line = {
      step,
      loss,
      gradientNorm,
      learningRate,
      imagesPerSecond: (images / milliseconds) * 1000,
      seconds: this.seconds,
    };
    await appendFile(join(this.folder, 'metrics.jsonl'), `${JSON.stringify(line)}\n`);
  }

  /** Steps after the checkpoint will be done again, and logged again. */
  private async forgetMetricsAfter(step: number): Promise<void> {
    const path = join(this.folder, 'metrics.jsonl');
    const lines = (await readFile(path, 'utf8').catch(() => '')).split('\n');
    const kept = lines.filter((line) => line !== '' && stepOf(line) <= step);
    await writeFileAtomic(path, new TextEncoder().encode(kept.map((line) => `${line}\n`).join('')));
  }

  release(): Promise<void> {
    return this.session.release();
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
