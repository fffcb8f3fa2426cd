import { join } from 'node:path';
import type { z } from 'zod';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { AutoencoderKL } from '../../models/index.js';
import { saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import {
  type AutoencoderTraining,
  type AutoencoderTrainingOptions,
  autoencoderLearner,
  autoencoderTraining,
  latentDeviation,
} from '../autoencoder.js';
import { type LearningBatch, LearningSession } from '../learning.js';
import type { Activations } from '../perceptual.js';
import { openActivations } from './perceptualFolder.js';
import { type LearningEvent, RunFolder } from './runFolder.js';

/** The training of an {@link AutoencoderKL} in a folder: see {@link RunFolder}. The weights for use are in `vae/`. */
export class AutoencoderRun {
  readonly session: LearningSession;

  private constructor(
    private readonly files: RunFolder,
    readonly config: AutoencoderTraining,
    readonly dataset: Dataset,
    readonly model: AutoencoderKL,
    activations?: Activations,
  ) {
    const { klWeight, perceptualWeight } = config;
    const learning = { klWeight, perceptualWeight, activations };
    this.session = new LearningSession((rng) => autoencoderLearner(model, { ...learning, rng }), config);
  }

  get folder(): string {
    return this.files.path;
  }

  /** A new run; its folder is made by {@link run}. @throws Error when the folder holds one already, TypeError for a wrong config. */
  static async create(options: AutoencoderTrainingOptions, folder: string): Promise<AutoencoderRun> {
    const config = autoencoderTraining.parse(options);
    const files = new RunFolder(folder);
    await files.checkVacant();
    return AutoencoderRun.open(files, config);
  }

  /** Continues a run. @param changes `steps` is the new total. @throws Error when there is none, or it is damaged (named). */
  static async resume(folder: string, changes: { steps?: number } = {}): Promise<AutoencoderRun> {
    const files = new RunFolder(folder);
    const config = await files.settings(autoencoderTraining as z.ZodType<AutoencoderTraining>);
    const run = await AutoencoderRun.open(files, { ...config, ...changes });
    await files.restore(run.session, 'vae');
    return run;
  }

  private static async open(files: RunFolder, config: AutoencoderTraining): Promise<AutoencoderRun> {
    const { data, size, skipCorrupt, seed } = config;
    const dataset = await openDataset(data, { size, skipCorrupt });
    const [channels] = dataset.shape;
    const format = { inChannels: channels, outChannels: channels, sampleSize: size };
    const model = new AutoencoderKL({ ...format, ...config.modelConfig }, new Generator(seed));
    if (size % model.downsampling !== 0)
      throw new RangeError(
        `size ${size}: expected a multiple of ${model.downsampling}, what this autoencoder divides it by`,
      );
    const activations = config.perceptual === undefined ? undefined : await openActivations(config.perceptual);
    return new AutoencoderRun(files, { ...config, modelConfig: { ...model.config } }, dataset, model, activations);
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * @throws Error when another process trains this run; DivergedError.
   */
  run(signal?: AbortSignal): AsyncGenerator<LearningEvent, void, undefined> {
    const { session, config, dataset } = this;
    const { batch, seed, flip } = config;
    return this.files.train(
      {
        session,
        settings: config,
        batches: () => imagesOf(dataset, { batch, seed, flip, position: session.position }),
        write: (folder) => this.write(folder),
      },
      signal,
    );
  }

  /** The averaged weights, with the scale that their latents turn out to have. */
  private async write(folder: string): Promise<void> {
    const { model, session, config, dataset } = this;
    const weights = await session.averagedState();
    const twin = new AutoencoderKL({ ...model.config, scalingFactor: 1 }, new Generator(0));
    twin.loadStateDict(weights);
    const deviation = await latentDeviation(twin, dataset, { device: config.device, threads: config.threads });
    const scaled = new AutoencoderKL({ ...model.config, scalingFactor: 1 / deviation }, new Generator(0));
    await saveModel(join(folder, 'vae'), scaled, { weights });
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

async function* imagesOf(
  dataset: Dataset,
  options: Parameters<typeof batches>[1],
): AsyncGenerator<LearningBatch, void, undefined> {
  for await (const { images, next } of batches(dataset, options)) yield { arrays: { images }, next };
}
