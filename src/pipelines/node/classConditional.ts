import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { NdArray } from '../../array/index.js';
import { flowPaths } from '../../diffusion/index.js';
import { readBytes, readJson } from '../../io/node/index.js';
import { type Denoiser, denoiserClasses } from '../../models/index.js';
import { loadComponent, loadModel } from '../../models/node/index.js';
import { type Sampler, samplerFromConfig } from '../../samplers/index.js';
import type { CompileOptions } from '../../tensor/index.js';
import type { SampleStep } from '../denoise.js';
import { asRectifiedFlow } from '../flowOnPath.js';
import { type Autoencoder, LatentSpace } from '../latentSpace.js';
import { type SampleOptions, sample, sampleImages } from '../sample.js';

const modelIndex = z.looseObject({
  _class_name: z.string(),
  /** Class names by number, as diffusers' DiTPipeline keeps them. */
  id2label: z.record(z.string().regex(/^\d+$/), z.string()).optional(),
  /** Of a flow that was not trained on straight lines: noisewright's own. */
  _flow_path: z.object({ path: z.enum(flowPaths), pathPower: z.number(), bridgeSigma: z.number() }).optional(),
  /** Of a flow whose noise and data were not paired at random: noisewright's own. */
  _coupled_pairs: z.boolean().optional(),
  /** Of a model of latents. */
  vae: z.tuple([z.string().nullable(), z.string().nullable()]).optional(),
});

export type PipelineSampleOptions = Omit<SampleOptions, 'model' | 'sampler'> & { readonly sampler?: Sampler };

interface Parts {
  readonly model: Denoiser;
  readonly sampler: Sampler;
  readonly classNames: readonly string[];
  readonly knowsNullClass: boolean;
  readonly coupled: boolean;
  readonly latents?: LatentSpace;
}

/**
 * A class-conditional model of images, or of an autoencoder's latents, with its sampler, from a folder in diffusers'
 * layout: a run, a shipped checkpoint, or a DiTPipeline (Peebles & Xie 2023).
 */
export class ClassConditionalPipeline {
  readonly kind = 'class-conditional';
  readonly model: Denoiser;
  /** The one of scheduler/scheduler_config.json. */
  readonly sampler: Sampler;
  /** By number; synonyms are parted by commas. Empty when the folder does not name them. */
  readonly classNames: readonly string[];
  /** False for a run that was trained without dropping classes: it has no unconditional prediction. */
  readonly knowsNullClass: boolean;
  /** True for a flow that was trained on coupled pairs (`--coupling ot`, reflow): only its ODE can be sampled. */
  readonly coupled: boolean;
  /** The autoencoder of a model of latents. */
  readonly latents?: LatentSpace;

  private constructor({ model, sampler, classNames, knowsNullClass, coupled, latents }: Parts) {
    this.model = model;
    this.sampler = sampler;
    this.classNames = classNames;
    this.knowsNullClass = knowsNullClass;
    this.coupled = coupled;
    this.latents = latents;
  }

  /**
   * @param folder holds model_index.json, scheduler/, transformer/ or unet/, and for a model of latents vae/.
   * @throws Error that names the file or field at fault.
   */
  static async fromPretrained(folder: string): Promise<ClassConditionalPipeline> {
    await checkKind(folder);
    const index = await readJson(join(folder, 'model_index.json'), modelIndex);
    const part = denoiserClasses.find((entry) => entry.folder in index);
    if (!part) throw new Error(`${folder}: model_index.json names no transformer and no unet`);
    const scheduler = join(folder, 'scheduler', 'scheduler_config.json');
    const sampler = samplerFromConfig(new TextDecoder().decode(await readBytes(scheduler)));
    const stored = await loadModel(join(folder, part.folder));
    const model = index._flow_path ? asRectifiedFlow(stored, index._flow_path) : stored;
    const { conditionDropout, coupling, kind } = await notesOf(folder);
    const vaeClass = index.vae?.[1];
    const vae = vaeClass ? await loadComponent(join(folder, 'vae'), vaeClass) : undefined;
    return new ClassConditionalPipeline({
      model,
      sampler,
      classNames: namesOf(index.id2label ?? {}),
      knowsNullClass: conditionDropout > 0,
      coupled: index._coupled_pairs ?? (kind === 'reflow' || coupling === 'ot'),
      latents: vae && latentSpace(vae as unknown as Autoencoder, model, folder),
    });
  }

  /**
   * The numbers of classes by any of their names, as `golden retriever`.
   * @throws RangeError for a name that no class has, with those that are like it.
   */
  labelIds(names: readonly string[]): number[] {
    return names.map((name) => {
      const found = this.classNames.findIndex((own) => synonymsOf(own).includes(plainName(name)));
      if (found >= 0) return found;
      const near = this.classNames.filter((own) => synonymsOf(own).some((word) => word.includes(plainName(name))));
      const hint = (near.length > 0 ? near : this.classNames).slice(0, 10).join('; ');
      throw new RangeError(`class '${name}' is unknown; ${near.length > 0 ? 'like it are' : 'there are'} ${hint}`);
    });
  }

  /** Denoises step by step: images, or a model of latents' latents. */
  sample(options: PipelineSampleOptions): AsyncGenerator<SampleStep, void, undefined> {
    return sample({ ...this.defaults, ...options, model: this.model });
  }

  /** The finished images, [N, C, H, W], -1 black to 1 white; where the sampler does not clip, a little beyond. */
  async images(options: PipelineSampleOptions & { onStep?: (step: SampleStep) => void }): Promise<NdArray<'float32'>> {
    return this.decode(await sampleImages({ ...this.defaults, ...options, model: this.model }), options.compile);
  }

  /** What was sampled as images: of a model of latents, through its autoencoder. */
  async decode(samples: NdArray<'float32'>, compile?: CompileOptions): Promise<NdArray<'float32'>> {
    return this.latents ? this.latents.decode(samples, compile) : samples;
  }

  private get defaults() {
    return { sampler: this.sampler, knowsNullClass: this.knowsNullClass, coupled: this.coupled };
  }
}

/** Letters and digits in small letters, so that `Golden-Retriever` is found, too. */
const plainName = (name: string): string => name.toLowerCase().replaceAll(/[^\p{L}\p{N}]/gu, '');

/** The names of a class, which diffusers parts by commas, and all of them together. */
const synonymsOf = (names: string): string[] => [names, ...names.split(',')].map(plainName);

/** By number; '' for one that is not named. */
function namesOf(labels: Readonly<Record<string, string>>): string[] {
  const count = Object.keys(labels).reduce((most, id) => Math.max(most, Number(id) + 1), 0);
  return Array.from({ length: count }, (_, id) => labels[id] ?? '');
}

function latentSpace(vae: Autoencoder, model: Denoiser, folder: string): LatentSpace {
  const { latentChannels } = vae.config;
  if (latentChannels !== model.inChannels)
    throw new RangeError(`${folder}: vae has ${latentChannels} latent channels, the model expects ${model.inChannels}`);
  return new LatentSpace(vae);
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

const runNotes = z.looseObject({
  conditionDropout: z.number().default(0.1),
  coupling: z.string().optional(),
  kind: z.string().optional(),
});

/** What a run says of its training; a pipeline that is no run is taken to have been trained in the usual way. */
async function notesOf(folder: string): Promise<z.output<typeof runNotes>> {
  const path = join(folder, 'run.json');
  return existsSync(path) ? readJson(path, runNotes) : runNotes.parse({});
}
