import { type NdArray, ndarray } from '../array/index.js';
import type { Guider } from '../guidance/index.js';
import { sample, sampleByFlow, VariancePreservingFlow } from '../pipelines/index.js';
import type { ClassConditionalPipeline } from '../pipelines/node/index.js';
import { Generator } from '../random/index.js';
import type { Sampler } from '../samplers/index.js';
import type { CompileOptions } from '../tensor/index.js';

export interface GenerateOptions {
  readonly pipeline: ClassConditionalPipeline;
  /** The class of each picture. */
  readonly classes: readonly number[];
  /** Further classes of each picture, by the conditions that the guidance asks for. */
  readonly conditions?: Readonly<Record<string, readonly number[]>>;
  readonly guidance: Guider;
  readonly sampler?: Sampler;
  readonly steps: number;
  /** Solve the probability-flow ODE to this tolerance instead, with as many steps as that takes. */
  readonly tolerance?: number;
  readonly seed: number;
  /** Pictures made at a time; default 128. */
  readonly batch?: number;
  /** Keep what lies between noise and picture. */
  readonly keepSteps?: boolean;
  readonly compile?: CompileOptions;
  readonly signal?: AbortSignal;
  /** @param done of `total` steps over all batches; `images` are as many as this step worked on. */
  onStep?(done: number, total: number, images: number): void;
}

export interface Generated {
  /** [N, C, H, W], -1 black to 1 white; where the sampler does not clip, a little beyond. */
  readonly images: NdArray<'float32'>;
  /** Calls of the model for each picture. */
  readonly evaluations: number;
  /** After each step: the noisy pictures, and the estimate of the final ones; empty unless they were to be kept. */
  readonly steps: readonly { readonly sample: NdArray<'float32'>; readonly x0: NdArray<'float32'> }[];
  /** What `steps` hold as pictures: they are latents where the model is one of latents. */
  decode(samples: NdArray<'float32'>): Promise<NdArray<'float32'>>;
}

/** Samples any number of pictures, batch by batch. @throws Error when guidance was so strong that the numbers overflowed. */
export async function generate(options: GenerateOptions): Promise<Generated> {
  const { pipeline, classes, steps, batch = 128, keepSteps, onStep } = options;
  const { guidance, compile, signal, tolerance } = options;
  const { sampler = pipeline.sampler } = options;
  const flow = pipeline.sampler.predictionType === 'flow' && sampler.predictionType !== 'flow';
  const model = flow ? new VariancePreservingFlow(pipeline.model) : pipeline.model;
  const rng = new Generator(options.seed);
  const batches = Array.from({ length: Math.ceil(classes.length / batch) }, (_, i) =>
    classes.slice(i * batch, (i + 1) * batch),
  );
  const decode = (samples: NdArray<'float32'>) => pipeline.decode(samples, compile);
  const images: NdArray[] = [];
  const kept: { sample: NdArray[]; x0: NdArray[] }[] = [];
  let done = 0;
  let evaluations = 0;
  for (const [i, part] of batches.entries()) {
    if (tolerance !== undefined) {
      const flowed = await sampleByFlow({
        model: pipeline.model,
        sampler: pipeline.sampler,
        classes: part,
        guidance,
        seed: rng,
        rtol: tolerance,
        atol: tolerance,
        compile,
        signal,
        onStep: ({ t }) => onStep?.(done + 1 - t, batches.length, part.length),
      });
      onStep?.(++done, batches.length, 0);
      images.push(await decode(flowed.images));
      evaluations += flowed.evaluations / batches.length;
      continue;
    }
    let last: NdArray | undefined;
    for await (const step of sample({
      model,
      sampler,
      plan: { steps },
      classes: part,
      conditions: Object.fromEntries(
        Object.entries(options.conditions ?? {}).map(([name, all]) => [name, all.slice(i * batch, (i + 1) * batch)]),
      ),
      knowsNullClass: pipeline.knowsNullClass,
      coupled: pipeline.coupled,
      guidance,
      seed: rng,
      compile,
      signal,
    })) {
      last = step.sample;
      evaluations = step.total;
      if (keepSteps) {
        kept[step.step - 1] ??= { sample: [], x0: [] };
        kept[step.step - 1].sample.push(step.sample);
        kept[step.step - 1].x0.push(step.x0);
      }
      onStep?.(++done, step.total * batches.length, part.length);
    }
    images.push(await decode(last as NdArray<'float32'>));
  }
  const all = joined(images);
  if (!all.data.every(Number.isFinite))
    throw new Error('sampling ended in numbers that are not finite: lower the guidance scale, or take more steps');
  return {
    images: all,
    evaluations: Math.round(evaluations),
    steps: kept.map(({ sample, x0 }) => ({ sample: joined(sample), x0: joined(x0) })),
    decode,
  };
}

/** Arrays one after the other along their first axis. */
export function joined(parts: readonly NdArray[]): NdArray<'float32'> {
  const data = new Float32Array(parts.reduce((n, { data }) => n + data.length, 0));
  let at = 0;
  for (const part of parts) {
    data.set(part.data as Float32Array, at);
    at += part.data.length;
  }
  return ndarray(data, [parts.reduce((n, { shape }) => n + shape[0], 0), ...parts[0].shape.slice(1)]);
}

/** `count` of the numbers 1..total, evenly spread, the last included. */
export const evenly = (total: number, count: number): number[] => [
  ...new Set(Array.from({ length: count }, (_, i) => Math.round(((i + 1) * total) / count))),
];

/** What the classes are called; `class 3` where a folder does not say. */
export const classLabel = (pipeline: ClassConditionalPipeline, label: number): string =>
  pipeline.classNames[label] ?? `class ${label}`;

/** How much grids enlarge pictures of this side length, so that small ones can be seen. */
export const gridScale = (size: number): number => Math.max(1, Math.round(64 / size));
