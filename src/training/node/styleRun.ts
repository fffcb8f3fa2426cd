import { join } from 'node:path';
import { ndarray } from '../../array/index.js';
import type { Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { AdaINNet, beginNearIdentity } from '../../models/index.js';
import { saveStyleNet, styleNetWithEncoder } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { type LearningBatch, LearningSession } from '../learning.js';
import {
  normalizeActivations,
  reconstructionLearner,
  type StyleLossReport,
  type StyleTraining,
  styleBatches,
  styleLearner,
  styleLosses,
  styleTraining,
} from '../styleTransfer.js';
import { FolderRun } from './folderRun.js';
import type { LearningEvent, RunFolder } from './runFolder.js';

type LossesEvent = { readonly kind: 'losses'; readonly step: number } & StyleLossReport;
export type StyleEvent = LearningEvent | LossesEvent;

/** The training of an {@link AdaINNet}'s decoder in a folder: see {@link RunFolder}. The whole net for use is in `net/`. */
export class StyleRun extends FolderRun<StyleTraining, LossesEvent> {
  static readonly settings = styleTraining;
  protected readonly product = 'net';

  private constructor(
    files: RunFolder,
    config: StyleTraining,
    readonly contents: Dataset,
    readonly styles: Dataset,
    readonly net: AdaINNet,
  ) {
    const learner = config.objective === 'style' ? styleLearner(net, config) : reconstructionLearner(net);
    super(files, config, new LearningSession(() => learner, config, net.namedVariables()));
  }

  static async open(files: RunFolder, config: StyleTraining): Promise<StyleRun> {
    const { content, style, encoder, channels, pooling, size, skipCorrupt, seed, device, threads } = config;
    const contents = await openDataset(content, { size, skipCorrupt });
    const styles = content === style ? contents : await openDataset(style, { size, skipCorrupt });
    const rng = new Generator(seed);
    const net = encoder ? await styleNetWithEncoder(encoder, rng) : new AdaINNet({ channels, pooling }, rng);
    if (!encoder && (config.objective === 'reconstruction' || channels[0] >= 6)) beginNearIdentity(net);
    const scale = await normalizeActivations(net.encoder, contents, { compile: { device, threads } });
    const { weight } = net.decoder.conv4_1; // a decoder that was trained goes on seeing what it saw
    weight.set(
      ndarray(
        Float32Array.from(weight.value.data as Float32Array, (x) => x * scale),
        weight.shape,
      ),
    );
    return new StyleRun(files, { ...config, ...net.config }, contents, styles, net);
  }

  protected batches(): AsyncIterable<LearningBatch> {
    const { batch, seed, flip } = this.config;
    return styleBatches(this.contents, this.styles, { batch, seed, flip, position: this.session.position });
  }

  protected async write(folder: string): Promise<void> {
    await saveStyleNet(join(folder, 'net'), this.net, await this.session.averagedState());
  }

  /** The losses of the averaged weights, when they were saved. */
  protected override async *after(
    step: number,
    saved: boolean,
    signal?: AbortSignal,
  ): AsyncGenerator<LossesEvent, void, undefined> {
    if (!saved || signal?.aborted) return;
    const { config, contents, styles, net } = this;
    const { device, threads } = config;
    const twin = new AdaINNet(net.config, new Generator(0));
    twin.loadStateDict(await this.session.averagedState());
    const report = await styleLosses(twin, contents, styles, { compile: { device, threads } });
    await this.files.note({ step, ...report });
    yield { kind: 'losses', step, ...report };
  }
}
