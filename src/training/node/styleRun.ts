import { join } from 'node:path';
import type { z } from 'zod';
import { ndarray } from '../../array/index.js';
import type { Dataset } from '../../data/index.js';
import { openDataset } from '../../data/node/index.js';
import { AdaINNet, beginNearIdentity } from '../../models/index.js';
import { saveStyleNet, styleNetWithEncoder } from '../../models/node/index.js';
import { Generator } from '../../random/index.js';
import { LearningSession } from '../learning.js';
import {
  normalizeActivations,
  reconstructionLearner,
  type StyleLossReport,
  type StyleTraining,
  type StyleTrainingOptions,
  styleBatches,
  styleLearner,
  styleLosses,
  styleTraining,
} from '../styleTransfer.js';
import { type LearningEvent, RunFolder } from './runFolder.js';

export type StyleEvent = LearningEvent | ({ readonly kind: 'losses'; readonly step: number } & StyleLossReport);

/** The training of an {@link AdaINNet}'s decoder in a folder: see {@link RunFolder}. The whole net for use is in `net/`. */
export class StyleRun {
  readonly session: LearningSession;

  private constructor(
    private readonly files: RunFolder,
    readonly config: StyleTraining,
    readonly contents: Dataset,
    readonly styles: Dataset,
    readonly net: AdaINNet,
  ) {
    const learner = config.objective === 'style' ? styleLearner(net, config) : reconstructionLearner(net);
    this.session = new LearningSession(() => learner, config, net.namedVariables());
  }

  get folder(): string {
    return this.files.path;
  }

  /** A new run; its folder is made by {@link run}. @throws Error when the folder holds one already, TypeError for a wrong config. */
  static async create(options: StyleTrainingOptions, folder: string): Promise<StyleRun> {
    const config = styleTraining.parse(options);
    const files = new RunFolder(folder);
    await files.checkVacant();
    return StyleRun.open(files, config);
  }

  /** Continues a run. @param changes `steps` is the new total. @throws Error when there is none, or it is damaged (named). */
  static async resume(folder: string, changes: { steps?: number } = {}): Promise<StyleRun> {
    const files = new RunFolder(folder);
    const config = await files.settings(styleTraining as z.ZodType<StyleTraining>);
    const run = await StyleRun.open(files, { ...config, ...changes });
    await files.restore(run.session, 'net');
    return run;
  }

  private static async open(files: RunFolder, config: StyleTraining): Promise<StyleRun> {
    const { content, style, encoder, channels, size, skipCorrupt, seed, device, threads } = config;
    const contents = await openDataset(content, { size, skipCorrupt });
    const styles = content === style ? contents : await openDataset(style, { size, skipCorrupt });
    const rng = new Generator(seed);
    const net = encoder ? await styleNetWithEncoder(encoder, rng) : new AdaINNet({ channels }, rng);
    if (config.objective === 'reconstruction' && !encoder) beginNearIdentity(net);
    const scale = await normalizeActivations(net.encoder, contents, { compile: { device, threads } });
    const { weight } = net.decoder.conv4_1; // a decoder that was trained goes on seeing what it saw
    weight.set(
      ndarray(
        Float32Array.from(weight.value.data as Float32Array, (x) => x * scale),
        weight.shape,
      ),
    );
    return new StyleRun(files, { ...config, channels: net.config.channels }, contents, styles, net);
  }

  /**
   * Trains to the end, writing metrics and checkpoints; also when it is aborted, after the step under way.
   * @throws Error when another process trains this run; DivergedError.
   */
  run(signal?: AbortSignal): AsyncGenerator<StyleEvent, void, undefined> {
    const { session, config, contents, styles, net } = this;
    const { batch, seed, flip } = config;
    return this.files.train<StyleEvent>(
      {
        session,
        settings: config,
        batches: () => styleBatches(contents, styles, { batch, seed, flip, position: session.position }),
        write: async (folder) => saveStyleNet(join(folder, 'net'), net, await session.averagedState()),
        after: (step, saved) => this.after(step, saved, signal),
      },
      signal,
    );
  }

  /** The losses of the averaged weights, when they were saved. */
  private async *after(
    step: number,
    saved: boolean,
    signal?: AbortSignal,
  ): AsyncGenerator<StyleEvent, void, undefined> {
    if (!saved || signal?.aborted) return;
    const { config, contents, styles, net } = this;
    const { device, threads } = config;
    const twin = new AdaINNet(net.config, new Generator(0));
    twin.loadStateDict(await this.session.averagedState());
    const report = await styleLosses(twin, contents, styles, { compile: { device, threads } });
    await this.files.note({ step, ...report });
    yield { kind: 'losses', step, ...report };
  }

  release(): Promise<void> {
    return this.session.release();
  }
}
