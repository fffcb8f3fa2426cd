import { join } from 'node:path';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { AutoencoderKL } from '../../models/index.js';
import { saveModel } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { type AutoencoderTraining, autoencoderLearner, autoencoderTraining, latentDeviation } from '../autoencoder.js';
import { type LearningBatch, LearningSession } from '../learning.js';
import type { Activations } from '../perceptual.js';
import { PictureRun } from './folderRun.js';
import { openActivations } from './perceptualFolder.js';
import type { RunFolder } from './runFolder.js';

/** The training of an {@link AutoencoderKL} in a folder: see {@link RunFolder}. The weights for use are in `vae/`. */
export class AutoencoderRun extends PictureRun<AutoencoderTraining> {
  static readonly settings = autoencoderTraining;
  protected readonly product = 'vae';

  private constructor(
    files: RunFolder,
    config: AutoencoderTraining,
    dataset: Dataset,
    readonly model: AutoencoderKL,
    activations?: Activations,
  ) {
    const { klWeight, perceptualWeight } = config;
    const learning = { klWeight, perceptualWeight, activations };
    super(
      files,
      config,
      new LearningSession((rng) => autoencoderLearner(model, { ...learning, rng }), config),
      dataset,
    );
  }

  static async open(files: RunFolder, config: AutoencoderTraining): Promise<AutoencoderRun> {
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

  protected batches(): AsyncIterable<LearningBatch> {
    const { batch, seed, flip } = this.config;
    return imagesOf(this.dataset, { batch, seed, flip, position: this.session.position });
  }

  /** The averaged weights, with the scale that their latents turn out to have. */
  protected async write(folder: string): Promise<void> {
    const { model, session, config, dataset } = this;
    const weights = await session.averagedState();
    const twin = new AutoencoderKL({ ...model.config, scalingFactor: 1 }, new Generator(0));
    twin.loadStateDict(weights);
    const deviation = await latentDeviation(twin, dataset, { device: config.device, threads: config.threads });
    const scaled = new AutoencoderKL({ ...model.config, scalingFactor: 1 / deviation }, new Generator(0));
    await saveModel(join(folder, 'vae'), scaled, { weights });
  }
}

async function* imagesOf(
  dataset: Dataset,
  options: Parameters<typeof batches>[1],
): AsyncGenerator<LearningBatch, void, undefined> {
  for await (const { images, next } of batches(dataset, options)) yield { arrays: { images }, next };
}
