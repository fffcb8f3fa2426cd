import { join } from 'node:path';
import { pathExists } from '../io/node/index.js';
import { checkCoupledFlow } from '../pipelines/index.js';
import { ClassConditionalPipeline, modelFolder, pipelineKind } from '../pipelines/node/index.js';
import type { Sampler } from '../samplers/index.js';
import { UsageError } from './exitCodes.js';
import { interruptible } from './interrupt.js';
import { type Output, shellWord } from './output.js';
import { Progress } from './progress.js';
import { type SamplerName, samplerNamed, samplerNameOf } from './values.js';

/** The folder of a model, fetched from the hub if it is none: with progress, since that may be gigabytes. */
export async function fetchedFolder(output: Output, source: string): Promise<string> {
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    progress ??= new Progress(output, { label: `fetching ${source} (MB)`, total: total / 1e6 });
    progress.update(done / 1e6);
  };
  return interruptible((signal) => modelFolder(source, { onProgress, signal })).finally(() => progress?.stop());
}

/**
 * A class-conditional pipeline: a run, a folder, or a model at the hub.
 * @throws UsageError that names the right command when it makes pictures of texts.
 */
export async function openClassConditional(output: Output, source: string): Promise<ClassConditionalPipeline> {
  const folder = await fetchedFolder(output, source);
  if ((await pathExists(join(folder, 'model_index.json'))) && (await pipelineKind(folder)) === 'text-to-image')
    throw new UsageError(
      `${source} makes pictures of texts: noisewright generate --model ${shellWord(source)} "a prompt"`,
    );
  return ClassConditionalPipeline.fromPretrained(folder);
}

/** The same pipeline. @throws Error when it samples latents: what `command` does is about pixels. */
export function ofPixels(pipeline: ClassConditionalPipeline, command: string): ClassConditionalPipeline {
  if (pipeline.latents)
    throw new Error(`${command} is for models of pixels, and this one is of an autoencoder's latents`);
  return pipeline;
}

/**
 * The sampler that `--sampler` names, or a model's own.
 * @throws UsageError for one that the model cannot be sampled with.
 */
export function samplerFor(
  { sampler: own, coupled }: ClassConditionalPipeline,
  steps: number,
  name?: SamplerName,
): Sampler {
  const sampler = name ? samplerNamed(name, own) : own;
  try {
    if (coupled) checkCoupledFlow(sampler, { steps }, `--sampler ${samplerNameOf(sampler)}`);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  return sampler;
}
