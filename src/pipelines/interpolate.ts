import { type NdArray, ndarray } from '../array/index.js';
import type { Guider } from '../guidance/index.js';
import type { Denoiser } from '../models/index.js';
import { ddim, ddimInverse, type Sampler } from '../samplers/index.js';
import type { CompileOptions } from '../tensor/index.js';
import { sampleImages } from './sample.js';
import { VariancePreservingFlow } from './variancePreservingFlow.js';

type Images = NdArray<'float32'>;

export interface InversionOptions {
  readonly model: Denoiser;
  /** A sampler the model is for: it knows the model's noise schedule and what it predicts. */
  readonly sampler: Sampler;
  /** The class of each image; default: the null class, no condition. */
  readonly classes?: readonly number[];
  /** Steps in each direction; default 100. More follow the way back better. */
  readonly steps?: number;
  /** On the way to the image only: inversion is plain, where guidance would not lead back. */
  readonly guidance?: Guider;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
  readonly onStep?: (done: number, total: number) => void;
}

/** DDIM there and back on the model's own schedule; a model of rectified flow as one of a variance preserving process. */
function deterministic({ model, sampler }: InversionOptions) {
  const flow = sampler.predictionType === 'flow';
  const shared = flow
    ? { predictionType: 'v_prediction' as const }
    : Object.fromEntries(Object.entries(sampler.config).filter(([key]) => ddimInverse.configKeys.includes(key)));
  const config = { ...shared, clipSample: false, timestepSpacing: 'leading' as const, stepsOffset: 0 };
  return {
    model: flow ? new VariancePreservingFlow(model) : model,
    to: ddimInverse(config) as Sampler,
    back: ddim(config) as Sampler,
  };
}

async function run(options: InversionOptions, direction: 'to' | 'back', latents: Images): Promise<Images> {
  const { steps = 100, guidance, signal, compile, onStep } = options;
  const { model, ...samplers } = deterministic(options);
  const classes = options.classes ?? Array.from({ length: latents.shape[0] }, () => model.nullClass ?? 0);
  if (classes.length !== latents.shape[0])
    throw new RangeError(`ddim inversion: ${classes.length} classes for ${latents.shape[0]} images`);
  return sampleImages({
    model,
    sampler: samplers[direction],
    plan: { steps },
    classes,
    latents,
    size: [latents.shape[2], latents.shape[3]],
    signal,
    compile,
    ...(direction === 'back' && guidance && { guidance }),
    onStep: ({ step, total }) => onStep?.(step, total),
  });
}

/** The noise that DDIM turns into these images, Song et al. 2021 (arXiv:2010.02502), section 4.3. @param images [N, C, H, W] in [-1, 1]. */
export const ddimInvert = (options: InversionOptions & { readonly images: Images }): Promise<Images> =>
  run(options, 'to', options.images);

/** The images that DDIM makes of noise, [N, C, H, W]: the way back of {@link ddimInvert}. */
export const ddimGenerate = (options: InversionOptions & { readonly latents: Images }): Promise<Images> =>
  run(options, 'back', options.latents);

/**
 * Spherical interpolation: keeps to the shell that normal noise of many dimensions lies on (Shoemake 1985).
 * @param share 0 gives a, 1 gives b.
 */
export function slerp(a: Float32Array, b: Float32Array, share: number): Float32Array<ArrayBuffer> {
  const dot = (p: Float32Array, q: Float32Array) => p.reduce((sum, x, i) => sum + x * q[i], 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)))));
  const [ofA, ofB] =
    Math.sin(angle) < 1e-4
      ? [1 - share, share]
      : [Math.sin((1 - share) * angle) / Math.sin(angle), Math.sin(share * angle) / Math.sin(angle)];
  return Float32Array.from(a, (x, i) => ofA * x + ofB * b[i]);
}

/**
 * Pictures on the way from one image to another: both are inverted, and what lies between their latents is generated.
 * The first and the last of them are the images as they come back, which shows how well the inversion held.
 * @param images [2, C, H, W] in [-1, 1]. @param classes of the two; those between are of the nearer one.
 * @returns [count, C, H, W].
 */
export async function interpolateImages(
  options: InversionOptions & { readonly images: Images; readonly count?: number },
): Promise<Images> {
  const { images, count = 9, classes, onStep } = options;
  if (images.shape[0] !== 2) throw new RangeError(`interpolateImages: expected 2 images, got ${images.shape[0]}`);
  if (!(Number.isInteger(count) && count >= 2))
    throw new RangeError(`interpolateImages: count: expected a whole number of at least 2, got ${count}`);
  const half = (offset: number) =>
    onStep && ((done: number, total: number) => onStep(done + offset * total, 2 * total));
  const { data, shape } = await ddimInvert({ ...options, onStep: half(0) });
  const [a, b] = [data.slice(0, data.length / 2), data.slice(data.length / 2)];
  const shares = Array.from({ length: count }, (_, i) => i / (count - 1));
  const latents = new Float32Array(count * a.length);
  for (const [i, share] of shares.entries()) latents.set(slerp(a, b, share), i * a.length);
  return ddimGenerate({
    ...options,
    classes: classes && shares.map((share) => classes[Math.round(share)]),
    latents: ndarray(latents, [count, ...shape.slice(1)]),
    onStep: half(1),
  });
}
