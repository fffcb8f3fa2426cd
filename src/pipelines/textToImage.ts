import { type NdArray, ndarray } from '../array/index.js';
import { cfg, type Guider } from '../guidance/index.js';
import {
  blackened,
  type ControlNet,
  type LoraLayer,
  loraFor,
  type SafetyVerdict,
  UNet2DCondition,
} from '../models/index.js';
import { type LowRanks, type Module, timestepEmbedding, withLowRanks } from '../nn/index.js';
import { Generator } from '../random/index.js';
import type { PlanOptions, Sampler, SamplerPlan } from '../samplers/index.js';
import { type CompileOptions, concat, constant, evaluate, type Hosted, type Tensor } from '../tensor/index.js';
import { type Control, checkControls, controlResiduals, speaking } from './control.js';
import {
  type Denoising,
  denoise,
  lastSample,
  type SampleStep,
  type SamplingOptions,
  type StepGraph,
  type Tensors,
} from './denoise.js';
import { type Autoencoder, LatentSpace } from './latentSpace.js';
import { binary, masked, repeatEach, shrunk, spread } from './masks.js';
import { StepGraphs } from './stepGraphs.js';
import { checkRequest, listOf, sizeOf, startOf, usualSize } from './textToImageRequest.js';

/** A model of latents that is told a text. */
export interface TextConditioned extends Module {
  readonly config: { readonly sampleSize?: number | readonly [number, number] | null };
  readonly inChannels: number;
  forward(x: Tensor, timestep: Tensor, conditions: Tensors): Tensor;
}

/** Turns texts into what the model is told, under the names of its conditions. */
export interface PromptEncoder {
  /** @param size [height, width] of the pictures, which some models are told, too. @returns arrays [N, ...], by name. */
  encode(prompts: readonly string[], options: PromptOptions): Promise<Readonly<Record<string, NdArray>>>;
  /** By their folders' names: `text_encoder`, `text_encoder_2`. */
  readonly textEncoders?: Readonly<Record<string, Module>>;
}
/**
 * 'weighted': `(word:1.3)` and its kin count, and prompts of any length go in chunks. 'plain', as in diffusers:
 * brackets are letters like others, and what is too long for the text encoder is cut off.
 */
export type PromptSyntax = 'weighted' | 'plain';
export interface PromptOptions {
  /** Default 'weighted'. */
  readonly promptSyntax?: PromptSyntax;
  /** How many of the text encoder's last layers to leave out; default 0, or what the model was trained with. */
  readonly clipSkip?: number;
  readonly size: readonly [height: number, width: number];
  /** Changes of the text encoders. */
  readonly loras?: readonly LowRanks[];
  readonly compile?: CompileOptions;
}

/** Judges finished pictures [N, 3, H, W] in [-1, 1]. */
export type SafetyCheck = (images: NdArray<'float32'>, compile?: CompileOptions) => Promise<readonly SafetyVerdict[]>;

export interface TextToImageParts {
  readonly model: TextConditioned;
  readonly vae: Autoencoder;
  readonly prompts: PromptEncoder;
  readonly sampler: Sampler;
  /** Pictures that it finds unsafe come out black. */
  readonly safety?: SafetyCheck;
  /** Those that came with the model, to be used in `controls`. */
  readonly controlNets?: readonly ControlNet[];
  /** 'int8': the model denoises with large weights in 8 bits, on the CPU; default: as they are. */
  readonly weights?: CompileOptions['weights'];
}

export interface TextToImageOptions extends Omit<SamplingOptions, 'sampler' | 'plan' | 'latents'> {
  readonly prompt: string | readonly string[];
  /** What to move away from: one for all, or one for each prompt; default ''. */
  readonly negativePrompt?: string | readonly string[];
  /** Further prompts, by the names of the conditions that the guidance asks for. */
  readonly prompts?: Readonly<Record<string, string | readonly string[]>>;
  /** What models are told directly, in place of the encoded prompts, by the conditions' names: [N, ...]. */
  readonly conditions?: Readonly<Record<string, Readonly<Record<string, NdArray>>>>;
  /** Default 1. */
  readonly imagesPerPrompt?: number;
  /** [height, width] in pixels, multiples of the autoencoder's factor; default that of the image, or the model's. */
  readonly size?: readonly [height: number, width: number];
  readonly clipSkip?: number;
  readonly promptSyntax?: PromptSyntax;
  /** Number of steps, or all that the sampler's plan takes. */
  readonly steps?: number | PlanOptions;
  readonly sampler?: Sampler;
  /** Classifier-free guidance where `guidance` is not given; default 7.5. Distilled models (LCM) are told it instead. */
  readonly guidanceScale?: number;
  /** Unit normal numbers to begin with, [N, latent channels, h, w]; default: drawn from the seed. */
  readonly noise?: NdArray<'float32'>;
  /** Begin with this picture, in [-1, 1]: [1 or N, 3, H, W]. */
  readonly image?: NdArray<'float32'>;
  /** How much of the way from noise to go with `image`: near 0 changes little, 1 forgets it; default 0.8, with a mask 1. */
  readonly strength?: number;
  /** 1 where `image` is to be painted anew, 0 where it is kept: [1 or N, 1, H, W]. */
  readonly mask?: NdArray<'float32'>;
  readonly controls?: readonly Control[];
}

export interface ImagesOptions {
  /** After each step, which waits for it; `latents.decode(step.x0)` shows what the picture is about to become. */
  readonly onStep?: (step: SampleStep) => unknown;
  /** false: pictures are not judged, even when the model comes with a safety checker. */
  readonly safetyChecker?: boolean;
  /** What the safety checker finds, one for each picture. */
  readonly onVerdicts?: (verdicts: readonly SafetyVerdict[]) => void;
}

/**
 * Latent diffusion guided by text (Rombach et al. 2022), from noise or from a picture (SDEdit, Meng et al. 2021), painted
 * anew in part (with a UNet of 4 or 9 channels), and controlled by ControlNets; any sampler, any guidance.
 * Numbers are drawn in the order of diffusers' Stable Diffusion pipelines.
 */
export class TextToImage {
  readonly kind = 'text-to-image';
  readonly latents: LatentSpace;
  #loras: LowRanks[] = [];
  #textLoras: LowRanks[] = [];
  #graphs: StepGraphs<StepGraph> | undefined;
  readonly #guiders = new Map<number, Guider>();

  constructor(readonly parts: TextToImageParts) {
    this.latents = new LatentSpace(parts.vae);
  }

  /**
   * Changes the model, and the text encoders that the LoRA has layers for, from now on; several add up.
   * @throws Error that names the layers which the model or an encoder lacks, or the encoder that is not there.
   */
  addLora(layers: readonly LoraLayer[], weight = 1): void {
    const { model, prompts } = this.parts;
    const partOf = ({ target }: LoraLayer): string => (target.startsWith('text_encoder') ? target : 'model');
    const changes = [...new Set(layers.map(partOf))].map((part): [string, LowRanks] => {
      const own = layers.filter((layer) => partOf(layer) === part);
      const module = part === 'model' ? model : prompts.textEncoders?.[part];
      if (!module)
        throw new Error(
          `LoRA: ${own.length} of its layers are for ${part}, which this model lacks: ${own[0].path} ...`,
        );
      return [part, loraFor(module, own, weight)];
    });
    for (const [part, change] of changes) (part === 'model' ? this.#loras : this.#textLoras).push(change);
  }

  clearLoras(): void {
    this.#loras = [];
    this.#textLoras = [];
  }

  /**
   * From now on the compiled steps of a call stay for the next one, which starts at once where size, number of pictures,
   * sampler, LoRAs, ControlNets and the guidance (the object, or the scale) are the same. The model's memory stays taken,
   * too, until {@link release}.
   */
  keepCompiled(): void {
    this.#graphs ??= new StepGraphs();
  }

  /** Frees what {@link keepCompiled} keeps, and ends it. */
  async release(): Promise<void> {
    const graphs = this.#graphs;
    this.#graphs = undefined;
    await graphs?.release();
  }

  /** Denoises latents step by step, yielding after each. @throws RangeError or TypeError that names the option at fault. */
  async *sample(options: TextToImageOptions): AsyncGenerator<SampleStep, void, undefined> {
    yield* denoise(await this.#prepare(options));
  }

  /** The finished pictures, [N, 3, H, W] in about [-1, 1]; black where the safety checker finds them unsafe. */
  async images(options: TextToImageOptions & ImagesOptions): Promise<NdArray<'float32'>> {
    const latents = await lastSample(this.sample(options), options.onStep);
    const images = await this.latents.decode(latents, options.compile);
    if (!this.parts.safety || options.safetyChecker === false) return images;
    const judged = await this.parts.safety(images, options.compile);
    options.onVerdicts?.(judged);
    return judged.some(({ unsafe }) => unsafe) ? blackened(images, judged) : images;
  }

  async #prepare(options: TextToImageOptions) {
    const { parts, latents } = this;
    const { imagesPerPrompt = 1, guidanceScale = 7.5, controls = [], image, mask, compile } = options;
    const rng = options.seed instanceof Generator ? options.seed : new Generator(options.seed ?? 0);
    const prompts = typeof options.prompt === 'string' ? [options.prompt] : options.prompt;
    const count = prompts.length * imagesPerPrompt;
    const factor = latents.factor;
    const size = options.size ?? sizeOf(image ?? controls[0]?.image) ?? usualSize(parts.model, factor);
    checkRequest(options, prompts.length, size, factor);
    if (!mask && parts.model.inChannels === 2 * latents.channels + 1)
      throw new TypeError('mask: this model paints parts of pictures; give an image and a mask');
    checkControls(controls);
    const sampler = options.sampler ?? parts.sampler;
    const steps = typeof options.steps === 'object' ? options.steps : { steps: options.steps ?? 50 };
    const start = image ? startOf(sampler, steps, options.strength ?? (mask ? 1 : 0.8)) : 0;
    const plan = { ...steps, ...(start > 0 && { start }) };
    const distilled = parts.model instanceof UNet2DCondition ? parts.model.config.timeCondProjDim : undefined;
    const guidance = options.guidance ?? this.#guider(distilled ? 1 : guidanceScale);

    const table = sampler.plan(plan);
    const conditions = await this.#conditions(options, prompts, size, conditionsOf(guidance, table));
    const shape = [count, latents.channels, size[0] / factor, size[1] / factor];
    const begun = await this.#begin(rng, shape, table, start === 0, options);
    const shared: Record<string, NdArray | readonly NdArray[]> = { ...begun.shared };
    if (controls.length > 0)
      shared.controls = controls.map((control) => spread(control.image, count, 'ControlNet image'));
    if (distilled) shared.timestepCond = await guidanceEmbedding(guidanceScale - 1, distilled, count);
    return {
      ...options,
      sampler,
      plan,
      guidance,
      seed: rng,
      compile: parts.weights ? { ...compile, weights: parts.weights } : compile,
      latents: begun.x,
      graphs: this.#graphs,
      shape,
      conditions: mapped(conditions, (condition) => mapped(condition, (array) => repeatEach(array, imagesPerPrompt))),
      shared: shared as Hosted<Tensors>,
      system: latentSystem(parts.model, controls, this.#loras),
    };
  }

  /** The same object for the same scale. */
  #guider(scale: number): Guider {
    const guider = this.#guiders.get(scale) ?? cfg(scale);
    this.#guiders.set(scale, guider);
    return guider;
  }

  /** What the model is told, by the names of the conditions that are asked for. */
  async #conditions(
    options: TextToImageOptions,
    prompts: readonly string[],
    size: readonly [number, number],
    asked: ReadonlySet<string>,
  ): Promise<Record<string, Readonly<Record<string, NdArray>>>> {
    const { negativePrompt = '', conditions = {}, clipSkip, promptSyntax, compile } = options;
    const loras = this.#textLoras;
    const texts: Record<string, string | readonly string[]> = {
      positive: prompts,
      negative: negativePrompt,
      ...options.prompts,
    };
    const told = { ...conditions };
    const names = Object.keys(texts).filter((name) => asked.has(name) && !(name in told));
    // diffusers lets clipSkip be: the negative prompt always goes through all layers.
    const groups = clipSkip
      ? [names.filter((name) => name !== 'negative'), names.filter((name) => name === 'negative')]
      : [names];
    for (const group of groups.filter(({ length }) => length > 0)) {
      const each = group.flatMap((name) => listOf(texts[name], prompts.length, name));
      const skip = group[0] === 'negative' ? undefined : clipSkip;
      const encoded = await this.parts.prompts.encode(each, { clipSkip: skip, promptSyntax, size, loras, compile });
      for (const [i, name] of group.entries())
        told[name] = mapped(encoded, (array) => rows(array, i * prompts.length, prompts.length));
    }
    return told;
  }

  /** The latents to begin with, and what inpainting needs at every step. `whole`: all steps are made. */
  async #begin(
    rng: Generator,
    shape: readonly number[],
    plan: SamplerPlan,
    whole: boolean,
    { image, mask, noise: given, compile }: TextToImageOptions,
  ): Promise<{ x: NdArray<'float32'>; shared: Record<string, NdArray> }> {
    const { alpha, sigma } = plan.calls[0];
    const encode = async (picture: NdArray<'float32'>) =>
      spread(await this.latents.encode(picture, rng, compile), shape[0], 'image');
    if (!image) return { x: combined([plan.initialScale, given ?? rng.randn(shape)]), shared: {} };

    const pasted = mask && this.parts.model.inChannels === this.latents.channels;
    // A UNet that is shown the masked picture needs the picture itself only to begin half-way.
    const known = whole && mask && !pasted ? undefined : await encode(image);
    const noise = given ?? rng.randn(shape);
    const x =
      known && !(whole && mask) ? combined([alpha, known], [sigma, noise]) : combined([plan.initialScale, noise]);
    if (!mask) return { x, shared: {} };
    // diffusers encodes the masked picture either way, so that numbers drawn later are the same.
    const maskedLatents = await encode(masked(image, binary(mask)));
    const small = spread(shrunk(binary(mask), shape[2], shape[3]), shape[0], 'mask');
    return { x, shared: pasted ? { mask: small, known: known!, noise } : { mask: small, maskedLatents } };
  }
}

/** How a model of latents takes part in {@link denoise}, with ControlNets, LoRAs, and inpainting in either way. */
function latentSystem(
  model: TextConditioned,
  controls: readonly Control[],
  changes: readonly LowRanks[],
): Denoising<Tensors, Tensors> {
  return {
    model,
    from: [...changes, ...controls.flatMap(({ net, guess = false }) => [net, guess])],
    variant: (step) => speaking(controls, step),
    numbers: (_, next) => [next.alpha, next.sigma, ...controls.map(({ scale = 1 }) => scale)],
    predict(x, timestep, condition, { shared, numbers, variant, condition: name }) {
      const { timestepCond, mask, maskedLatents, controls: images = [] } = shared as Shared;
      const conditions: Tensors = timestepCond ? { ...condition, timestepCond } : condition;
      const scales = controls.length > 0 ? numbers.slice(0, 2) : numbers;
      const residuals = controlResiduals(controls, variant, {
        x,
        timestep,
        conditions,
        images,
        scales,
        condition: name,
      });
      const input = mask && maskedLatents ? concat([x, mask, maskedLatents], 1) : x;
      return withLowRanks(changes, () => model.forward(input, timestep, { ...conditions, ...residuals }));
    },
    settle(x, { shared, numbers }) {
      const { mask, known, noise } = shared as Shared;
      if (!mask || !known || !noise) return x;
      const [alpha, sigma] = [numbers.slice(0, 0, 1), numbers.slice(0, 1, 2)];
      const kept = known.mul(alpha).add(noise.mul(sigma));
      return kept.add(x.sub(kept).mul(mask));
    },
  };
}

/** What {@link TextToImage} shares between predictions; a part is there when the request has it. */
interface Shared {
  readonly timestepCond?: Tensor;
  readonly controls?: readonly Tensor[];
  readonly mask?: Tensor;
  /** Painted around: the picture's latents and the noise they are given. */
  readonly known?: Tensor;
  readonly noise?: Tensor;
  /** Shown to a UNet that was trained for it. */
  readonly maskedLatents?: Tensor;
}

const rows = ({ dtype, shape, data }: NdArray, from: number, count: number): NdArray => {
  const size = data.length / shape[0];
  return { dtype, shape: [count, ...shape.slice(1)], data: data.slice(from * size, (from + count) * size) } as NdArray;
};

const mapped = <T, U>(record: Readonly<Record<string, T>>, f: (value: T) => U): Record<string, U> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, f(value)]));

/** The names of the conditions that guidance asks for during a run. */
const conditionsOf = (guidance: Guider, { calls }: SamplerPlan): Set<string> =>
  new Set(
    calls.flatMap(({ timestep }, index) =>
      guidance.branches({ index, total: calls.length, timestep }).map(({ condition }) => condition),
    ),
  );

/** A sum of arrays of one shape, each times a number. */
function combined(...terms: readonly (readonly [number, NdArray<'float32'>])[]): NdArray<'float32'> {
  const [, { shape, data }] = terms[0];
  return ndarray(
    Float32Array.from(data, (_, i) => terms.reduce((sum, [factor, array]) => sum + factor * array.data[i], 0)),
    shape,
  );
}

/** How latent consistency models are told the scale w (Luo et al. 2023): sinusoids of 1000 w, the same for all, [N, dim]. */
async function guidanceEmbedding(w: number, dim: number, count: number): Promise<NdArray> {
  const embedded = timestepEmbedding(constant([w * 1000]), dim);
  return repeatEach((await evaluate(embedded)) as NdArray<'float32'>, count);
}
