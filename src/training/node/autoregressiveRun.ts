import { join } from 'node:path';
import type { z } from 'zod';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { writeJson } from '../../io/node/index.js';
import { type AutoregressiveModel, ImageDistribution } from '../../models/index.js';
import { saveImageDistribution } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import {
  type AutoregressiveTraining,
  type AutoregressiveTrainingOptions,
  autoregressiveLearner,
  autoregressiveTraining,
  type ImageLikelihoodReport,
  imageLikelihood,
} from '../autoregressive.js';
import { LearningSession } from '../learning.js';
import { imagesAndLabels } from '../session.js';
import { type LearningEvent, RunFolder } from './runFolder.js';

export type AutoregressiveEvent =
  | LearningEvent
  | ({ readonly kind: 'likelihood'; readonly step: number; readonly split: 'train' | 'test' } & ImageLikelihoodReport);

/** The training of an {@link ImageDistribution} in a folder: see {@link RunFolder}. The weights for use are in `distribution/`. */
export class AutoregressiveRun {
  readonly session: LearningSession;
  private heldOut?: Dataset;

  private constructor(
    private readonly files: RunFolder,
    readonly config: AutoregressiveTraining,
    readonly dataset: Dataset,
    private readonly distribution: ImageDistribution,
  ) {
    const variables = distribution.model.namedVariables();
    this.session = new LearningSession((rng) => autoregressiveLearner(distribution, rng), config, variables);
  }

  get folder(): string {
    return this.files.path;
  }
  get model(): AutoregressiveModel {
    return this.distribution.model;
  }

  /** A new run; its folder is made by {@link run}. @throws Error when the folder holds one already, TypeError for a wrong config. */
  static async create(options: AutoregressiveTrainingOptions, folder: string): Promise<AutoregressiveRun> {
    const config = autoregressiveTraining.parse(options);
    const files = new RunFolder(folder);
    await files.checkVacant();
    return AutoregressiveRun.open(files, config);
  }

  /** Continues a run. @param changes `steps` is the new total. @throws Error when there is none, or it is damaged (named). */
  static async resume(folder: string, changes: { steps?: number } = {}): Promise<AutoregressiveRun> {
    const files = new RunFolder(folder);
    const config = await files.settings(autoregressiveTraining as z.ZodType<AutoregressiveTraining>);
    const run = await AutoregressiveRun.open(files, { ...config, ...changes });
    await files.restore(run.session, 'distribution');
    return run;
  }

  private static async open(files: RunFolder, config: AutoregressiveTraining): Promise<AutoregressiveRun> {
    const { data, size, skipCorrupt, seed, model, modelConfig, labels } = config;
    const dataset = await openDataset(data, { size, skipCorrupt });
    const [channels, height, width] = dataset.shape;
    const classes = labels ? dataset.classNames.length : 0;
    const imageShape: [number, number, number] = [channels, height, width];
    const distribution = new ImageDistribution({ model, modelConfig, imageShape, classes }, new Generator(seed));
    const resolved = { ...config, modelConfig: distribution.config.modelConfig };
    return new AutoregressiveRun(files, resolved, dataset, distribution);
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * @throws Error when another process trains this run; DivergedError.
   */
  run(signal?: AbortSignal): AsyncGenerator<AutoregressiveEvent, void, undefined> {
    const { session, config, dataset } = this;
    const { batch, seed, flip } = config;
    return this.files.train<AutoregressiveEvent>(
      {
        session,
        settings: config,
        batches: () => imagesAndLabels(batches(dataset, { batch, seed, flip, position: session.position })),
        write: (folder) => this.write(folder),
        after: (step, saved) => this.after(step, saved, signal),
      },
      signal,
    );
  }

  /** At each checkpoint the averaged weights are asked about pictures that they were not trained on, if there are any. */
  private async *after(
    step: number,
    saved: boolean,
    signal?: AbortSignal,
  ): AsyncGenerator<AutoregressiveEvent, void, undefined> {
    const { data, size, skipCorrupt, device, threads, testImages } = this.config;
    if (!saved || testImages === 0 || signal?.aborted) return;
    this.heldOut ??= await openDataset(data, { size, skipCorrupt, split: 'test' }).catch(() => this.dataset);
    const twin = new ImageDistribution(this.distribution.config, new Generator(0));
    twin.model.loadStateDict(await this.session.averagedState());
    const options = { count: testImages, signal, compile: { device, threads } };
    const report = await imageLikelihood(twin, this.heldOut, options).catch((error) => {
      if (!signal?.aborted) throw error;
    });
    if (!report) return;
    const line = { step, split: this.heldOut === this.dataset ? 'train' : 'test', ...report } as const;
    await this.files.note(line);
    yield { kind: 'likelihood', ...line };
  }

  private async write(folder: string): Promise<void> {
    const path = join(folder, 'distribution');
    await saveImageDistribution(path, this.distribution, await this.session.averagedState());
    await writeJson(join(path, 'classes.json'), this.dataset.classNames);
  }

  release(): Promise<void> {
    return this.session.release();
  }
}
