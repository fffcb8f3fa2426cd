import { join } from 'node:path';
import { batches, type Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import type { FlowModel } from '../../models/index.js';
import { Generator } from '../../random/index.js';
import { LearningSession } from '../../training/index.js';
import { type LearningEvent, type LikelihoodEvent, LikelihoodRun, type RunFolder } from '../../training/node/index.js';
import {
  type FlowLikelihoodReport,
  type FlowTrainingConfig,
  flowLearner,
  flowLikelihood,
  flowTraining,
  startFlow,
} from '../flowTraining.js';
import { ImageFlow } from '../imageFlow.js';
import { saveImageFlow } from './imageFlowFolder.js';

export type FlowEvent = LearningEvent | LikelihoodEvent<FlowLikelihoodReport>;

/** Pictures that actnorms start from: enough for pixels that are dark in most. */
const startImages = 256;

/** The training of an {@link ImageFlow} in a folder: see {@link RunFolder}. The weights for use are in `flow/`. */
export class FlowRun extends LikelihoodRun<FlowTrainingConfig, FlowLikelihoodReport> {
  static readonly settings = flowTraining;
  protected readonly product = 'flow';

  private constructor(
    files: RunFolder,
    config: FlowTrainingConfig,
    dataset: Dataset,
    private readonly flow: ImageFlow,
  ) {
    const variables = flow.model.namedVariables();
    super(files, config, new LearningSession((rng) => flowLearner(flow, rng), config, variables), dataset);
  }

  get model(): FlowModel {
    return this.flow.model;
  }

  static async open(files: RunFolder, config: FlowTrainingConfig): Promise<FlowRun> {
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

  protected async likelihood() {
    const twin = new ImageFlow(this.flow.config, new Generator(0));
    twin.model.loadStateDict(await this.session.averagedState());
    return flowLikelihood.bind(undefined, twin);
  }

  protected async write(folder: string): Promise<void> {
    await saveImageFlow(join(folder, 'flow'), this.flow, await this.session.averagedState());
  }
}
