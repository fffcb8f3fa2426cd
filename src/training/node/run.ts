import { join } from 'node:path';
import type { z } from 'zod';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { pathExists } from '../../io/node/index.js';
import { AutoencoderKL, EncoderUNet, trainableClass } from '../../models/index.js';
import { loadComponent, saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { flowPathOf, type TrainConfig, type TrainOptions, trainConfig } from '../config.js';
import { learningBatches } from '../coupling.js';
import { latentDataset, latentShape } from '../latents.js';
import { type AccuracyByNoise, accuracyByNoise, checkClassifierConfig } from '../noisyClassifier.js';
import { samplerConfigOf } from '../samplerConfig.js';
import { processOf, TrainingSession } from '../session.js';
import type { NoisyImageModel } from '../step.js';
import { writePipelineFolder } from './pipelineFolder.js';
import { type LearningEvent, RunFolder } from './runFolder.js';

/** What a run reports while it trains. */
export type RunEvent =
  | LearningEvent
  | ({ readonly kind: 'accuracy'; readonly step: number; readonly split: 'test' | 'train' } & AccuracyByNoise)
  | { readonly kind: 'preview'; readonly step: number };

/**
 * The training of a class-conditional model or a noisy classifier in a folder: see {@link RunFolder}. The weights for use
 * are `model_index.json`, `transformer/`, `unet/` or `classifier/`, and `scheduler/`, as diffusers lays them out.
 */
export class TrainingRun {
  private heldOut?: Dataset;

  private constructor(
    private readonly files: RunFolder,
    readonly config: TrainConfig,
    /** Pictures, also where the model is one of latents. */
    readonly dataset: Dataset,
    readonly session: TrainingSession,
    /** Of a model of latents. */
    readonly vae?: AutoencoderKL,
  ) {}

  get folder(): string {
    return this.files.path;
  }
  get model(): NoisyImageModel {
    return this.session.model;
  }

  /** A new run; its folder is made by {@link run}. @throws Error when the folder holds one already, TypeError for a wrong config. */
  static async create(options: TrainOptions, folder: string): Promise<TrainingRun> {
    const config = trainConfig.parse(options);
    const files = new RunFolder(folder);
    await files.checkVacant();
    return TrainingRun.open(files, config);
  }

  /**
   * Continues a run from its last checkpoint, or from its start when it has none yet.
   * @param changes `steps` is the new total.
   * @throws Error when there is no run, or its last checkpoint is damaged (named).
   */
  static async resume(folder: string, changes: { steps?: number } = {}): Promise<TrainingRun> {
    const files = new RunFolder(folder);
    const config = { ...(await files.settings(trainConfig as z.ZodType<TrainConfig>)), ...changes };
    const run = await TrainingRun.open(files, config);
    await files.restore(run.session, 'model_index.json');
    return run;
  }

  private static async open(files: RunFolder, config: TrainConfig): Promise<TrainingRun> {
    const { data, size, skipCorrupt } = config;
    if (config.model === EncoderUNet.className) checkClassifierConfig(config);
    const dataset = await openDataset(data, { size, skipCorrupt });
    const [channels, height, width] = dataset.shape;
    if (height !== width)
      throw new RangeError(`${data}: images are ${height}x${width}; give --size to make them square`);
    const vae = config.vae === undefined ? undefined : await openVae(config, files.path);
    const [inChannels, side] = vae ? latentShape(dataset, vae) : [channels, height];
    const format = { channels: inChannels, size: side, classes: dataset.classNames.length };
    const modelConfig = { ...(config.learnVariance && { outChannels: 2 * inChannels }), ...config.modelConfig };
    const model = trainableClass(config.model).create(modelConfig, format, new Generator(config.seed));
    const resolved = { ...config, modelConfig: { ...model.config } };
    return new TrainingRun(files, resolved, dataset, new TrainingSession(model, resolved), vae);
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * Nothing is written before the first step is done.
   * @throws Error when another process trains this run; DivergedError.
   */
  run(signal?: AbortSignal): AsyncGenerator<RunEvent, void, undefined> {
    const { session, config } = this;
    const { batch, seed, flip } = config;
    return this.files.train<RunEvent>(
      {
        session,
        settings: config,
        batches: async () =>
          learningBatches(batches(await this.shown(signal), { batch, seed, flip, position: session.position }), config),
        write: (folder) => this.writePipeline(folder),
        after: (step, saved) => this.after(step, saved, signal),
      },
      signal,
    );
  }

  /** What the model is shown: pictures, or their latents. */
  private async shown(signal?: AbortSignal): Promise<Dataset> {
    const { seed, device, threads } = this.config;
    return this.vae
      ? latentDataset(this.dataset, this.vae, { seed, compile: { device, threads }, signal })
      : this.dataset;
  }

  private async *after(step: number, saved: boolean, signal?: AbortSignal): AsyncGenerator<RunEvent, void, undefined> {
    const { sampleEvery } = this.config;
    if (saved && !signal?.aborted) yield* this.judge(step, signal);
    if (sampleEvery > 0 && step % sampleEvery === 0) yield { kind: 'preview', step };
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
    await this.files.note(line);
    yield { kind: 'accuracy', ...line };
  }

  private async writePipeline(folder: string): Promise<void> {
    const { model, session, config, dataset, vae } = this;
    // Only the run has the autoencoder: its checkpoints are to train from.
    const place = join(folder, 'vae');
    if (vae && folder === this.folder && !(await pathExists(place))) await saveModel(place, vae);
    await writePipelineFolder(folder, {
      model,
      weights: await session.averagedState(),
      scheduler: samplerConfigOf(config),
      classNames: dataset.classNames,
      flowPath: flowPathOf(config),
      coupled: config.coupling !== 'random',
      ...(vae && { vae: AutoencoderKL.className }),
    });
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

/** The autoencoder that a run was begun with: its own copy, or that of its config. */
async function openVae({ vae: source, flip }: TrainConfig, folder: string): Promise<AutoencoderKL> {
  if (flip) throw new TypeError('training: flip mirrors pictures, not the latents of vae; leave it out');
  const places = [join(folder, 'vae'), join(source!, 'vae'), source!];
  const there = await Promise.all(places.map((place) => pathExists(join(place, 'config.json'))));
  const place = places.find((_, i) => there[i]) ?? source!;
  const vae = await loadComponent(place);
  if (!(vae instanceof AutoencoderKL))
    throw new TypeError(`${place}: training on latents needs an ${AutoencoderKL.className}`);
  return vae;
}
