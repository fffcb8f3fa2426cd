import { join } from 'node:path';
import type { z } from 'zod';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import type { FlowModel } from '../../models/index.js';
import { Generator } from '../../random/index.js';
import { imagesAndLabels, LearningSession } from '../../training/index.js';
import { type LearningEvent, RunFolder } from '../../training/node/index.js';
import {
  type FlowLikelihoodReport,
  type FlowTrainingConfig,
  type FlowTrainingConfigOptions,
  flowLearner,
  flowLikelihood,
  flowTraining,
  startFlow,
} from '../flowTraining.js';
import { ImageFlow } from '../imageFlow.js';
import { saveImageFlow } from './imageFlowFolder.js';

export type FlowEvent =
  | LearningEvent
  | ({ readonly kind: 'likelihood'; readonly step: number; readonly split: 'train' | 'test' } & FlowLikelihoodReport);

/** Pictures that actnorms start from: enough for pixels that are dark in most. */
const startImages = 256;

/** The training of an {@link ImageFlow} in a folder: see {@link RunFolder}. The weights for use are in `flow/`. */
export class FlowRun {
  readonly session: LearningSession;
  private heldOut?: Dataset;

  private constructor(
    private readonly files: RunFolder,
    readonly config: FlowTrainingConfig,
    readonly dataset: Dataset,
    private readonly flow: ImageFlow,
  ) {
    this.session = new LearningSession((rng) => flowLearner(flow, rng), config, flow.model.namedVariables());
  }

  get folder(): string {
    return this.files.path;
  }
  get model(): FlowModel {
    return this.flow.model;
  }

  /**
   * A new run; its folder is made by {@link run}.
   * @throws Error when the folder holds one already, TypeError for a wrong config, RangeError for pictures that the flow
   * cannot halve (named).
   */
  static async create(options: FlowTrainingConfigOptions, folder: string): Promise<FlowRun> {
    const config = flowTraining.parse(options);
    const files = new RunFolder(folder);
    await files.checkVacant();
    return FlowRun.open(files, config);
  }

  /** Continues a run. @param changes `steps` is the new total. @throws Error when there is none, or it is damaged (named). */
  static async resume(folder: string, changes: { steps?: number } = {}): Promise<FlowRun> {
    const files = new RunFolder(folder);
    const config = await files.settings(flowTraining as z.ZodType<FlowTrainingConfig>);
    const run = await FlowRun.open(files, { ...config, ...changes });
    await files.restore(run.session, 'flow');
    return run;
  }

  private static async open(files: RunFolder, config: FlowTrainingConfig): Promise<FlowRun> {
    const { data, size, skipCorrupt, seed, model, modelConfig, device, threads } = config;
    const dataset = await openDataset(data, { size, skipCorrupt });
    const flow = new ImageFlow({ model, modelConfig, imageShape: [...dataset.shape] }, new Generator(seed));
    const batch = Math.min(startImages, dataset.length);
    for await (const { images } of batches(dataset, { batch, seed, epochs: 1, prefetch: 0 })) {
      await startFlow(flow, images, { device, threads }); // before the averages copy the weights
      break;
    }
    return new FlowRun(files, { ...config, modelConfig: flow.config.modelConfig }, dataset, flow);
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * @throws Error when another process trains this run; DivergedError.
   */
  run(signal?: AbortSignal): AsyncGenerator<FlowEvent, void, undefined> {
    const { session, config, dataset } = this;
    const { batch, seed, flip } = config;
    return this.files.train<FlowEvent>(
      {
        session,
        settings: config,
        batches: () => imagesAndLabels(batches(dataset, { batch, seed, flip, position: session.position })),
        write: async (folder) => saveImageFlow(join(folder, 'flow'), this.flow, await session.averagedState()),
        after: (step, saved) => this.after(step, saved, signal),
      },
      signal,
    );
  }

  /** At each checkpoint the weights for use are asked about pictures that they were not trained on, if there are any. */
  private async *after(step: number, saved: boolean, signal?: AbortSignal): AsyncGenerator<FlowEvent, void, undefined> {
    const { data, size, skipCorrupt, device, threads, testImages } = this.config;
    if (!saved || testImages === 0 || signal?.aborted) return;
    this.heldOut ??= await openDataset(data, { size, skipCorrupt, split: 'test' }).catch(() => this.dataset);
    const twin = new ImageFlow(this.flow.config, new Generator(0));
    twin.model.loadStateDict(await this.session.averagedState());
    const options = { count: testImages, signal, compile: { device, threads } };
    const report = await flowLikelihood(twin, this.heldOut, options).catch((error) => {
      if (!signal?.aborted) throw error;
    });
    if (!report) return;
    const line = { step, split: this.heldOut === this.dataset ? 'train' : 'test', ...report } as const;
    await this.files.note(line);
    yield { kind: 'likelihood', ...line };
  }

  release(): Promise<void> {
    return this.session.release();
  }
}
