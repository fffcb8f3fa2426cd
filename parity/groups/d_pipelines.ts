import { resolve } from 'node:path';
import { z } from 'zod';
import { type NdArray, ndarray } from '../../src/array/index.js';
import { cfg, type Guider, guide, pag, skipLayer } from '../../src/guidance/index.js';
import { loadTokenizer } from '../../src/io/node/index.js';
import { type ControlNet, type Denoiser, UNet2DCondition } from '../../src/models/index.js';
import { loadComponent } from '../../src/models/node/index.js';
import {
  type Autoencoder,
  ClipPrompts,
  LatentSpace,
  type PromptEncoder,
  repeatEach,
  type SampleOptions,
  type SampleStep,
  sample,
  type TextConditioned,
  TextToImage,
  type TextToImageOptions,
} from '../../src/pipelines/index.js';
import { Generator } from '../../src/random/index.js';
import { type Sampler, type SamplerPlan, samplerFromConfig } from '../../src/samplers/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const description = z.object({
  scheduler_cls: z.string(),
  components: z.record(z.string(), z.string()),
  generator_seed: z.number().nullable(),
  steps: z.number(),
  note: z.string().default(''),
  guidance_scale: z.number().optional(),
  call: z
    .object({
      prompt: z.union([z.string(), z.array(z.string())]).optional(),
      negative_prompt: z.union([z.string(), z.array(z.string())]).optional(),
      num_inference_steps: z.number().optional(),
      height: z.number().optional(),
      width: z.number().optional(),
      guidance_scale: z.number().optional(),
      guidance_rescale: z.number().optional(),
      eta: z.number().optional(),
      clip_skip: z.number().optional(),
      num_images_per_prompt: z.number().optional(),
      strength: z.number().optional(),
      pag_scale: z.number().optional(),
      pag_adaptive_scale: z.number().optional(),
      controlnet_conditioning_scale: z.number().optional(),
      control_guidance_start: z.number().optional(),
      control_guidance_end: z.number().optional(),
      guess_mode: z.boolean().optional(),
      skip_guidance_layers: z.array(z.number()).optional(),
      skip_layer_guidance_scale: z.number().optional(),
      skip_layer_guidance_start: z.number().optional(),
      skip_layer_guidance_stop: z.number().optional(),
    })
    .loose()
    .nullish(),
});
type Description = z.output<typeof description>;
type Call = NonNullable<Description['call']>;

/** Keeps all normal numbers that are drawn, in order. */
class Recorder extends Generator {
  readonly drawn: NdArray[] = [];
  override randn<D extends 'float32' | 'float64' = 'float32'>(...args: Parameters<Generator['randn']>): NdArray<D> {
    const noise = super.randn(...args) as NdArray<D>;
    this.drawn.push(noise);
    return noise;
  }
}

const samplerOf = (reference: ReferenceCase, { scheduler_cls }: Description): Sampler =>
  samplerFromConfig({ ...reference.config, _class_name: scheduler_cls });

const component = <M>(reference: ReferenceCase, path: string): Promise<M> =>
  loadComponent(resolve(reference.directory, '..', path)) as Promise<unknown> as Promise<M>;

/** How diffusers' pipelines guide, in our guiders. `note` names the layers that are perturbed. */
function guidanceOf(call: Call, note: string): Guider {
  const { guidance_scale: scale = 7.5, pag_scale: perturbed = 0, skip_layer_guidance_scale: skipped } = call;
  const parts: Guider[] = scale > 1 ? [cfg(scale)] : [];
  if (perturbed > 0) {
    const layers = [.../pag_applied_layers=(\S+)/.exec(note)![1].matchAll(/'([^']+)'/g)].map(([, name]) => name);
    const { pag_adaptive_scale: adaptive = 0 } = call;
    const at = ({ timestep }: { timestep: number }) => Math.max(0, perturbed - adaptive * (1000 - timestep));
    parts.push(pag(adaptive > 0 ? at : perturbed, { layers }));
  }
  if (call.skip_guidance_layers && skipped) {
    const { skip_layer_guidance_start: from = 0.01, skip_layer_guidance_stop: to = 0.2 } = call;
    const interval = ({ index, total }: { index: number; total: number }) => index > total * from && index < total * to;
    parts.push(skipLayer(skipped, { layers: call.skip_guidance_layers, skip: 'block', interval }));
  }
  const [first, ...others] = parts;
  if (!first) return cfg(1);
  return guide(first, ...others, { rescale: scale > 1 ? (call.guidance_rescale ?? 0) : 0 });
}

const toUnit = (array: NdArray): NdArray<'float32'> =>
  ndarray(
    Float32Array.from(array.data as Float32Array, (x) => 2 * x - 1),
    array.shape,
  );
const toImage = (array: NdArray): NdArray<'float32'> =>
  ndarray(
    Float32Array.from(array.data as Float32Array, (x) => Math.min(1, Math.max(0, x / 2 + 0.5))),
    array.shape,
  );

const stacked = (arrays: readonly NdArray[]): NdArray<'float32'> =>
  ndarray(Float32Array.from(arrays.flatMap(({ data }) => [...(data as Float32Array)])), [
    arrays.length,
    ...arrays[0].shape,
  ]);

/** What the run of a pipeline leaves: its steps, the pictures, and the numbers it drew. */
function outputs(
  reference: ReferenceCase,
  steps: readonly SampleStep[],
  images: NdArray,
  rng: Recorder,
  calls: SamplerPlan['calls'],
): Outputs {
  const stored = reference.tensors.get('timesteps');
  // Where diffusers draws noise that is then multiplied by nothing: at the end of a run.
  while (reference.tensors.has(`noise.${rng.drawn.length}`)) rng.randn(rng.drawn[0].shape);
  return {
    step_latents: stacked(steps.map(({ sample }) => sample)),
    latents: steps.at(-1)!.sample,
    timesteps: ndarray(
      calls.map(({ timestep }) => timestep),
      [calls.length],
      stored?.dtype as 'int64' | 'float32',
    ),
    decoded_raw: images,
    image: toImage(images),
    ...Object.fromEntries(rng.drawn.map((noise, i) => [`noise.${i}`, noise])),
  };
}

/** Latent consistency models are told the scale instead. */
const isDistilled = (model: TextConditioned): boolean =>
  model instanceof UNet2DCondition && typeof model.config.timeCondProjDim === 'number';

async function textToImage(reference: ReferenceCase): Promise<Outputs> {
  const settings = reference.read(description);
  const { components, note } = settings;
  const call = settings.call ?? {};
  const load = <M>(name: string) => component<M>(reference, components[name]);
  const model = await load<TextConditioned>(components.unet ? 'unet' : 'transformer');
  const prompts = await promptEncoder(reference, components);
  const pipeline = new TextToImage({
    model,
    vae: await load<Autoencoder>('vae'),
    prompts: prompts ?? noPrompts,
    sampler: samplerOf(reference, settings),
  });
  const rng = new Recorder(settings.generator_seed ?? 0);
  const stored = (name: string) => reference.optionalInput(name) as NdArray<'float32'> | undefined;
  const inputImage = stored('image');
  const net = components.controlnet ? await load<ControlNet>('controlnet') : undefined;
  const { height, width, eta, num_inference_steps: steps = 50 } = call;
  const options: TextToImageOptions = {
    prompt: call.prompt ?? '',
    negativePrompt: call.negative_prompt,
    conditions: givenConditions(reference),
    imagesPerPrompt: call.num_images_per_prompt,
    clipSkip: call.clip_skip,
    promptSyntax: 'plain',
    size: height && width ? [height, width] : undefined,
    steps: { steps, ...(eta !== undefined && { eta }) },
    guidanceScale: call.guidance_scale,
    guidance: isDistilled(model) ? undefined : guidanceOf(call, note),
    seed: rng,
    noise: stored('latents'),
    image: !net && inputImage ? toUnit(inputImage) : undefined,
    mask: stored('mask_image'),
    strength: call.strength,
    controls: net && [
      {
        net,
        image: inputImage!,
        scale: call.controlnet_conditioning_scale,
        interval: [call.control_guidance_start ?? 0, call.control_guidance_end ?? 1],
        guess: call.guess_mode,
      },
    ],
  };
  const made: SampleStep[] = [];
  const images = await pipeline.images({ ...options, onStep: (step) => made.push(step) });
  const { calls } = samplerOf(reference, settings).plan({ steps });
  const [, , h, w] = images.shape;
  return {
    ...outputs(reference, made, images, rng, calls),
    ...(prompts && (await promptOutputs(prompts, call, [h, w]))),
  };
}

/** DiTPipeline, DDPMPipeline and DDIMPipeline. */
async function classConditional(reference: ReferenceCase): Promise<Outputs> {
  const settings = reference.read(description);
  const { components, steps, guidance_scale: scale = 1 } = settings;
  const model = await component<Denoiser>(reference, components.transformer ?? components.unet);
  const rng = new Recorder(settings.generator_seed ?? 0);
  const labels = reference.tensors.has('class_labels') ? [...reference.given('class_labels').data].map(Number) : [];
  const shape = reference.tensors.get('latents_init')?.shape ?? reference.tensors.get('image')!.shape;
  const sampler = samplerOf(reference, settings);
  const plan = { steps, ...settings.call };
  const options: SampleOptions = {
    model,
    sampler,
    plan,
    guidance: cfg(scale),
    classes: labels.length > 0 ? labels : Array.from({ length: shape[0] }, () => 0),
    seed: rng,
  };
  const made: SampleStep[] = [];
  for await (const step of sample(options)) made.push(step);
  const latents = made.at(-1)!.sample as NdArray<'float32'>;
  const vae = components.vae ? new LatentSpace(await component<Autoencoder>(reference, components.vae)) : undefined;
  const images = vae ? await vae.decode(latents) : latents;
  const { calls } = sampler.plan(plan);
  const { image, ...rest } = outputs(reference, made, images, rng, calls);
  return { ...rest, image, latents_init: rng.drawn[0] };
}

/** Embeddings that the case gives in place of prompts. */
function givenConditions(reference: ReferenceCase): TextToImageOptions['conditions'] {
  const of = (prefix: string) => {
    const embeds = reference.optionalInput(`${prefix}prompt_embeds`);
    const pooled = reference.optionalInput(prefix === '' ? 'pooled_prompt_embeds' : 'negative_pooled_prompt_embeds');
    return embeds && { encoderHiddenStates: embeds, ...(pooled && { pooledProjections: pooled }) };
  };
  const [positive, negative] = [of(''), of('negative_')];
  return { ...(positive && { positive }), ...(negative && { negative }) };
}

/** Of the case's own tokenizer and text encoder; none where embeddings are given. */
async function promptEncoder(
  reference: ReferenceCase,
  components: Description['components'],
): Promise<ClipPrompts | undefined> {
  if (!components.tokenizer) return undefined;
  const tokenizer = await loadTokenizer(resolve(reference.directory, '..', components.tokenizer));
  return new ClipPrompts({ tokenizer, model: await component(reference, components.text_encoder) });
}

const noPrompts: PromptEncoder = {
  encode: () => Promise.reject(new Error('the case has prompts, but no text encoder')),
};

/** What the prompts were turned into on the way. */
async function promptOutputs(encoder: ClipPrompts, call: Call, size: readonly [number, number]): Promise<Outputs> {
  const texts = [call.prompt ?? ''].flat();
  const negatives = [call.negative_prompt ?? ''].flat();
  const all = {
    prompt: texts,
    negative_prompt: negatives.length === texts.length ? negatives : texts.map(() => negatives[0]),
  };
  const entries = await Promise.all(
    Object.entries(all).map(async ([name, prompts]) => {
      const { encoderHiddenStates } = await encoder.encode(prompts, {
        clipSkip: name === 'prompt' ? call.clip_skip : undefined,
        promptSyntax: 'plain',
        size,
      });
      const embeds = repeatEach(encoderHiddenStates, call.num_images_per_prompt ?? 1);
      const ids = encoder.tower.tokenizer.encodeBatch(prompts).inputIds;
      return { [`${name}_embeds`]: embeds, [name === 'prompt' ? 'input_ids' : 'negative_input_ids']: ids };
    }),
  );
  return Object.assign({}, ...entries);
}

export const adapters: Readonly<Record<string, Adapter>> = {
  StableDiffusionPipeline: textToImage,
  StableDiffusionImg2ImgPipeline: textToImage,
  StableDiffusionInpaintPipeline: textToImage,
  StableDiffusionControlNetPipeline: textToImage,
  StableDiffusionPAGPipeline: textToImage,
  StableDiffusion3Pipeline: textToImage,
  StableDiffusion3PAGPipeline: textToImage,
  DiTPipeline: classConditional,
  DDPMPipeline: classConditional,
  DDIMPipeline: classConditional,
};
