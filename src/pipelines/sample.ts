import type { NdArray } from '../array/index.js';
import type { Denoiser } from '../models/index.js';
import type { Tensor } from '../tensor/index.js';
import { checkCoupledFlow } from './coupledFlow.js';
import { type Denoising, denoise, lastSample, type SampleStep, type SamplingOptions } from './denoise.js';
import { labelsOf } from './labels.js';
import { predict } from './predict.js';

export interface SampleOptions extends SamplingOptions {
  readonly model: Denoiser;
  /**
   * The class of each image to make, 0..nullClass-1 (nullClass itself: no condition). For a model without classes: all
   * 0, or the classes of a guidance that knows some, such as a classifier's.
   */
  readonly classes: readonly number[];
  /** What guidance moves away from; default: the null class. */
  readonly negativeClasses?: readonly number[];
  /** Further classes of each image by the names that guidance asks for (`composeConditions`). */
  readonly conditions?: Readonly<Record<string, readonly number[]>>;
  /** False for a model trained without dropping classes: it does not know its null class. Default true. */
  readonly knowsNullClass?: boolean;
  /** True for a flow trained on coupled pairs of noise and data: it has no score, see {@link checkCoupledFlow}. */
  readonly coupled?: boolean;
  /** [height, width]; default the model's. */
  readonly size?: readonly [number, number];
}

type Labels = { readonly labels: Tensor };

/** How a model of images and class labels takes part in {@link denoise}. */
const classConditional = (model: Denoiser): Denoising<Labels, Record<string, never>> => ({
  model,
  predict: (x, timestep, { labels }) => predict(model, x, timestep, model.nullClass === undefined ? undefined : labels),
});

/**
 * Denoises step by step, yielding after each: {@link denoise} for a model of images and class labels.
 * @throws RangeError for a class out of range, guidance without a null class, or a sampler that adds noise to a coupled
 * flow; AbortError when the signal fires.
 */
export async function* sample(options: SampleOptions): AsyncGenerator<SampleStep, void, undefined> {
  const { model, classes, negativeClasses, guidance, size = [model.sampleSize, model.sampleSize] } = options;
  const { nullClass = guidance?.numClasses ?? 0 } = model;
  if ((guidance?.numClasses ?? nullClass) !== nullClass)
    throw new RangeError(`sample: the guidance knows ${guidance?.numClasses} classes, the model ${nullClass}`);
  if (options.coupled) checkCoupledFlow(options.sampler, options.plan);
  const knowsNull = model.nullClass !== undefined && (options.knowsNullClass ?? true);
  const negative = negativeClasses ?? (knowsNull ? classes.map(() => nullClass) : undefined);
  const named = Object.entries({ ...options.conditions, ...(negative && { negative }), positive: classes });
  for (const [name, { length }] of named)
    if (length !== classes.length)
      throw new RangeError(`sample: ${length} ${name} classes for ${classes.length} images`);
  const labels = named.map(
    ([name, list]) => [name, { labels: labelsOf(model.constructor.name, list, nullClass) }] as const,
  );
  yield* denoise({
    ...options,
    system: classConditional(model),
    shape: [classes.length, model.inChannels, ...size],
    conditions: Object.fromEntries(labels),
    shared: {},
  });
}

/**
 * The last sample of {@link sample}, [N, C, H, W]; of a model of images -1 black to 1 white, a little beyond where the
 * sampler does not clip.
 */
export const sampleImages = (
  options: SampleOptions & { onStep?: (step: SampleStep) => void },
): Promise<NdArray<'float32'>> => lastSample(sample(options), options.onStep);
