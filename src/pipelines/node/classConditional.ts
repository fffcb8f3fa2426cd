import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { NdArray } from '../../array/index.js';
import { readBytes, readJson } from '../../io/node/index.js';
import { type Denoiser, denoiserClasses } from '../../models/index.js';
import { loadModel } from '../../models/node/index.js';
import { type Sampler, samplerFromConfig } from '../../samplers/index.js';
import type { SampleStep } from '../denoise.js';
import { type SampleOptions, sample, sampleImages } from '../sample.js';

const modelIndex = z.looseObject({
  _class_name: z.string(),
  /** Class names by number, as diffusers' DiTPipeline keeps them. */
  id2label: z.record(z.string().regex(/^\d+$/), z.string()).optional(),
});

export type PipelineSampleOptions = Omit<SampleOptions, 'model' | 'sampler'> & { readonly sampler?: Sampler };

/** A class-conditional image model with its sampler, from a folder in diffusers' layout: a run, or a shipped checkpoint. */
export class ClassConditionalPipeline {
  private constructor(
    readonly model: Denoiser,
    /** The one of scheduler/scheduler_config.json. */
    readonly sampler: Sampler,
    /** Empty when the folder does not name them. */
    readonly classNames: readonly string[],
    /** False for a run that was trained without dropping classes: it has no unconditional prediction. */
    readonly knowsNullClass: boolean,
  ) {}

  /**
   * @param folder holds model_index.json, scheduler/ and transformer/ or unet/.
   * @throws Error that names the file or field at fault.
   */
  static async fromPretrained(folder: string): Promise<ClassConditionalPipeline> {
    await checkKind(folder);
    const index = await readJson(join(folder, 'model_index.json'), modelIndex);
    const part = denoiserClasses.find((entry) => entry.folder in index);
    if (!part) throw new Error(`${folder}: model_index.json names no transformer and no unet`);
    const scheduler = join(folder, 'scheduler', 'scheduler_config.json');
    const sampler = samplerFromConfig(new TextDecoder().decode(await readBytes(scheduler)));
    const model = await loadModel(join(folder, part.folder));
    const names = Object.entries(index.id2label ?? {}).sort(([a], [b]) => Number(a) - Number(b));
    return new ClassConditionalPipeline(
      model,
      sampler,
      names.map(([, name]) => name),
      await dropsClasses(folder),
    );
  }

  /** Denoises step by step. */
  sample(options: PipelineSampleOptions): AsyncGenerator<SampleStep, void, undefined> {
    return sample({ ...this.defaults, ...options, model: this.model });
  }

  /** The finished images, [N, C, H, W] in [-1, 1]. */
  images(options: PipelineSampleOptions & { onStep?: (step: SampleStep) => void }): Promise<NdArray<'float32'>> {
    return sampleImages({ ...this.defaults, ...options, model: this.model });
  }

  private get defaults() {
    return { sampler: this.sampler, knowsNullClass: this.knowsNullClass };
  }
}

/** @throws Error for the run of a model of another kind, which has no model_index.json. */
async function checkKind(folder: string): Promise<void> {
  const path = join(folder, 'run.json');
  if (existsSync(join(folder, 'model_index.json')) || !existsSync(path)) return;
  const { kind } = await readJson(path, z.looseObject({ kind: z.string().optional() }));
  if (kind === 'flow' || kind === 'autoregressive')
    throw new Error(
      `${folder}: holds no class-conditional model, but a run of kind '${kind}': draw with sample-${kind}`,
    );
}

/** Whether a run dropped classes in training; a pipeline that is no run is taken to have done so. */
async function dropsClasses(folder: string): Promise<boolean> {
  const path = join(folder, 'run.json');
  if (!existsSync(path)) return true;
  return (await readJson(path, z.looseObject({ conditionDropout: z.number().default(0.1) }))).conditionDropout > 0;
}
