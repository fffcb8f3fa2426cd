import { join } from 'node:path';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { pathExists } from '../../io/node/index.js';
import { AutoencoderKL, EncoderUNet, trainableClass } from '../../models/index.js';
import { loadComponent, saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { flowPathOf, type TrainConfig, trainConfig } from '../config.js';
import { learningBatches } from '../coupling.js';
import { latentDataset, latentShape } from '../latents.js';
import type { LearningBatch } from '../learning.js';
import { type AccuracyByNoise, accuracyByNoise, checkClassifierConfig } from '../noisyClassifier.js';
import { samplerConfigOf } from '../samplerConfig.js';
import { processOf, TrainingSession } from '../session.js';
import type { NoisyImageModel } from '../step.js';
import { type Measured, PictureRun } from './folderRun.js';
import { writePipelineFolder } from './pipelineFolder.js';
import type { LearningEvent, RunFolder } from './runFolder.js';

/** What a run reports while it trains. */
export type RunEvent = LearningEvent | JudgedEvent;
type JudgedEvent =
  | ({ readonly kind: 'accuracy' } & Measured & AccuracyByNoise)
  | { readonly kind: 'preview'; readonly step: number };

/**
 * The training of a class-conditional model or a noisy classifier in a folder: see {@link RunFolder}. The weights for use
 * are `model_index.json`, `transformer/`, `unet/` or `classifier/`, and `scheduler/`, as diffusers lays them out.
 */
export class TrainingRun extends PictureRun<TrainConfig, JudgedEvent, TrainingSession> {
  static readonly settings = trainConfig;
  protected readonly product = 'model_index.json';

  private constructor(
    files: RunFolder,
    config: TrainConfig,
    dataset: Dataset,
    session: TrainingSession,
    /** Of a model of latents. */
    readonly vae?: AutoencoderKL,
  ) {
    super(files, config, session, dataset);
  }

  get model(): NoisyImageModel {
    return this.session.model;
  }

  static async open(files: RunFolder, config: TrainConfig): Promise<TrainingRun> {
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

  protected async batches(signal?: AbortSignal): Promise<AsyncIterable<LearningBatch>> {
    const { batch, seed, flip } = this.config;
    const { position } = this.session;
    return learningBatches(batches(await this.shown(signal), { batch, seed, flip, position }), this.config);
  }

  /** What the model is shown: pictures, or their latents. */
  private async shown(signal?: AbortSignal): Promise<Dataset> {
    const { seed, device, threads } = this.config;
    return this.vae
      ? latentDataset(this.dataset, this.vae, { seed, compile: { device, threads }, signal })
      : this.dataset;
  }

  protected override async *after(
    step: number,
    saved: boolean,
    signal?: AbortSignal,
  ): AsyncGenerator<JudgedEvent, void, undefined> {
    const { sampleEvery } = this.config;
    if (saved && !signal?.aborted) yield* this.judge(step, signal);
    if (sampleEvery > 0 && step % sampleEvery === 0) yield { kind: 'preview', step };
  }

  /** A classifier of noisy images is asked about some that it was not trained on, if there are any. */
  private async *judge(step: number, signal?: AbortSignal): AsyncGenerator<JudgedEvent, void, undefined> {
    const { session, config } = this;
    if (!(session.model instanceof EncoderUNet)) return;
    const { device, threads } = config;
    const twin = new EncoderUNet(session.model.config, new Generator(0));
    twin.loadStateDict(await session.averagedState());
    const options = { signal, compile: { device, threads } };
    const asked = (pictures: Dataset) =>
      accuracyByNoise(twin, pictures, processOf(config), { ...options, count: Math.min(1000, pictures.length) });
    const line = await this.measured(step, asked, signal);
    if (line) yield { kind: 'accuracy', ...line };
  }

  protected async write(folder: string): Promise<void> {
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
