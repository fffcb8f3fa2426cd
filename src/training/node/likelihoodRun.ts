import { batches, type Dataset } from '../../data/index.js';
import type { CompileOptions } from '../../tensor/index.js';
import type { LearningBatch } from '../learning.js';
import { imagesAndLabels } from '../session.js';
import { type Measured, PictureRun, type PictureSettings } from './folderRun.js';
import type { RunSettings } from './runFolder.js';

interface LikelihoodSettings extends RunSettings, PictureSettings {
  readonly batch: number;
  readonly seed: number;
  readonly flip: boolean;
  /** How many pictures are measured at each checkpoint. */
  readonly testImages: number;
  readonly device: CompileOptions['device'];
  readonly threads?: number;
}

/** How a likelihood is measured. */
interface MeasureOptions {
  /** Of how many pictures. */
  readonly count: number;
  readonly signal?: AbortSignal;
  readonly compile: CompileOptions;
}

export type LikelihoodEvent<R> = { readonly kind: 'likelihood' } & Measured & R;

/** A run whose model knows the likelihood of a picture. @typeParam R what is reported of it. */
export abstract class LikelihoodRun<C extends LikelihoodSettings, R extends object> extends PictureRun<
  C,
  LikelihoodEvent<R>
> {
  protected batches(): AsyncIterable<LearningBatch> {
    const { batch, seed, flip } = this.config;
    return imagesAndLabels(batches(this.dataset, { batch, seed, flip, position: this.session.position }));
  }

  /** @returns how to ask the averaged weights about pictures. */
  protected abstract likelihood(): Promise<(pictures: Dataset, options: MeasureOptions) => Promise<R>>;

  /** At each checkpoint the averaged weights are asked about pictures that they were not trained on, if there are any. */
  protected override async *after(
    step: number,
    saved: boolean,
    signal?: AbortSignal,
  ): AsyncGenerator<LikelihoodEvent<R>, void, undefined> {
    const { device, threads, testImages: count } = this.config;
    if (!saved || count === 0 || signal?.aborted) return;
    const likelihood = await this.likelihood();
    const options = { count, signal, compile: { device, threads } };
    const line = await this.measured(step, (pictures) => likelihood(pictures, options), signal);
    if (line) yield { kind: 'likelihood', ...line };
  }
}
