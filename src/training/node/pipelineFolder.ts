import { join } from 'node:path';
import type { NdArray } from '../../array/index.js';
import type { FlowPath } from '../../diffusion/index.js';
import { makeFolder, writeConfig, writeJson } from '../../io/node/index.js';
import { classNameOf, type StoredModel, trainableClass } from '../../models/index.js';
import { saveModel } from '../../models/node/index.js';

const pipelines = { transformer: 'DiTPipeline', unet: 'DDIMPipeline', classifier: 'NoisyClassifier' } as const;

export interface PipelineParts {
  readonly model: StoredModel;
  readonly weights: ReadonlyMap<string, NdArray>;
  /** The content of scheduler_config.json. */
  readonly scheduler: Readonly<Record<string, unknown>>;
  readonly classNames: readonly string[];
  /** Of a flow that is not one of straight lines. */
  readonly flowPath?: FlowPath;
  /** Whether a flow's noise and data were paired otherwise than at random: only its ODE can be sampled then. */
  readonly coupled?: boolean;
  /** The class of the autoencoder, which lies beside them, of a model of latents. */
  readonly vae?: string;
}

/** Writes a pipeline in diffusers' layout: model_index.json, scheduler/ and transformer/, unet/ or classifier/. */
export async function writePipelineFolder(
  folder: string,
  { model, weights, scheduler, classNames, flowPath, coupled, vae }: PipelineParts,
): Promise<void> {
  const { className, folder: part, library } = trainableClass(classNameOf(model));
  await makeFolder(join(folder, 'scheduler'));
  await saveModel(join(folder, part), model, { weights });
  await writeConfig(join(folder, 'scheduler', 'scheduler_config.json'), scheduler);
  await writeJson(join(folder, 'model_index.json'), {
    _class_name: pipelines[part],
    _diffusers_version: '0.40.0',
    [part]: [part === 'classifier' ? 'noisewright' : (library ?? 'diffusers'), className],
    scheduler: ['diffusers', scheduler._class_name],
    ...(vae && { vae: ['diffusers', vae] }),
    ...(flowPath && { _flow_path: flowPath }),
    ...(coupled && { _coupled_pairs: true }),
    id2label: Object.fromEntries(classNames.map((name, i) => [String(i), name])),
  });
}
