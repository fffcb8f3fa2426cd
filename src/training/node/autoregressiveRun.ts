import { join } from 'node:path';
import type { Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { writeJson } from '../../io/node/index.js';
import { type AutoregressiveModel, ImageDistribution } from '../../models/index.js';
import { saveImageDistribution } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import {
  type AutoregressiveTraining,
  autoregressiveLearner,
  autoregressiveTraining,
  type ImageLikelihoodReport,
  imageLikelihood,
} from '../autoregressive.js';
import { LearningSession } from '../learning.js';
import { type LikelihoodEvent, LikelihoodRun } from './likelihoodRun.js';
import type { LearningEvent, RunFolder } from './runFolder.js';

export type AutoregressiveEvent = LearningEvent | LikelihoodEvent<ImageLikelihoodReport>;

/** The training of an {@link ImageDistribution} in a folder: see {@link RunFolder}. The weights for use are in `distribution/`. */
export class AutoregressiveRun extends LikelihoodRun<AutoregressiveTraining, ImageLikelihoodReport> {
  static readonly settings = autoregressiveTraining;
  protected readonly product = 'distribution';

  private constructor(
    files: RunFolder,
    config: AutoregressiveTraining,
    dataset: Dataset,
    private readonly distribution: ImageDistribution,
  ) {
    const variables = distribution.model.namedVariables();
    const session = new LearningSession((rng) => autoregressiveLearner(distribution, rng), config, variables);
    super(files, config, session, dataset);
  }

  get model(): AutoregressiveModel {
    return this.distribution.model;
  }

  static async open(files: RunFolder, config: AutoregressiveTraining): Promise<AutoregressiveRun> {
    const { data, size, skipCorrupt, seed, model, modelConfig, labels } = config;
    const dataset = await openDataset(data, { size, skipCorrupt });
    const [channels, height, width] = dataset.shape;
    const classes = labels ? dataset.classNames.length : 0;
    const imageShape: [number, number, number] = [channels, height, width];
    const distribution = new ImageDistribution({ model, modelConfig, imageShape, classes }, new Generator(seed));
    const resolved = { ...config, modelConfig: distribution.config.modelConfig };
    return new AutoregressiveRun(files, resolved, dataset, distribution);
  }

  protected async likelihood() {
    const twin = new ImageDistribution(this.distribution.config, new Generator(0));
    twin.model.loadStateDict(await this.session.averagedState());
    return imageLikelihood.bind(undefined, twin);
  }

  protected async write(folder: string): Promise<void> {
    const path = join(folder, 'distribution');
    await saveImageDistribution(path, this.distribution, await this.session.averagedState());
    await writeJson(join(path, 'classes.json'), this.dataset.classNames);
  }
}
