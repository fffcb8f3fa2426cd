import {
  Conv2d,
  Embedding,
  GaussianFourierProjection,
  ImageHintTimeEmbedding,
  ImageProjection,
  ImageTimeEmbedding,
  Linear,
  Module,
  TextImageProjection,
  TextImageTimeEmbedding,
  TextTimeEmbedding,
  TimestepEmbedding,
  Timesteps,
} from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { concat, type Tensor } from '../tensor/index.js';
import type { StagesConfig } from './conditionConfig.js';
import type { DownBlock, MidBlock, SpatialContext } from './unetBlocks.js';

/** What a UNet or ControlNet is told besides the noisy image and its timestep. */
export type Conditions = {
  /** Text [N, L, crossAttentionDim] (or encoderHidDim, where it is projected first). */
  readonly encoderHiddenStates?: Tensor;
  /** [N, L] or [N, 1, L], 1 or true where the text may be attended to. */
  readonly encoderAttentionMask?: Tensor;
  /** [N, positions], 1 or true where the image's own positions may be attended to. */
  readonly attentionMask?: Tensor;
  /** int64 [N]; numbers [N] for `classEmbedType` timestep; [N, width] for the others. */
  readonly classLabels?: Tensor;
  /** A further condition at the timestep's side [N, timeCondProjDim]: a latent consistency model's guidance. */
  readonly timestepCond?: Tensor;
  /** Pooled text [N, width]: of `additionEmbedType` text_time and, by choice, text_image. */
  readonly textEmbeds?: Tensor;
  /** Original size, crop and target size [N, 6] of text_time (Stable Diffusion XL). */
  readonly timeIds?: Tensor;
  /** An image's embedding [N, width], of the types with `image`. */
  readonly imageEmbeds?: Tensor;
  /** [N, 3, 8 H, 8 W] of image_hint. */
  readonly hint?: Tensor;
};

/** {@link StagesConfig} with how time, class and further conditions are embedded; what only the UNet has is optional. */
export interface EncoderConfig extends StagesConfig {
  readonly upBlockTypes?: readonly string[];
  readonly convInKernel?: number;
  readonly timeEmbeddingType?: 'positional' | 'fourier';
  readonly timeEmbeddingDim?: number | null;
  readonly timestepPostAct?: 'silu' | 'swish' | 'mish' | 'gelu' | 'relu' | null;
  readonly timeCondProjDim?: number | null;
  readonly classEmbedType?: 'timestep' | 'identity' | 'projection' | 'simple_projection' | null;
  /** Default `actFn`. */
  readonly classEmbedActFn?: 'silu';
  readonly classEmbeddingsConcat?: boolean;
  readonly additionEmbedType?: 'text' | 'text_image' | 'text_time' | 'image' | 'image_hint' | null;
  readonly encoderHidDimType?: 'text_proj' | 'text_image_proj' | 'image_proj' | null;
}

/** The first half of a UNet with conditions: what diffusers' UNet2DConditionModel and ControlNetModel share. */
export abstract class ConditionEncoder extends Module {
  readonly convIn: Conv2d;
  readonly timeProj: Timesteps | GaussianFourierProjection;
  readonly timeEmbedding: TimestepEmbedding;
  readonly encoderHidProj?: Linear | TextImageProjection | ImageProjection;
  readonly classEmbedding?: Embedding | TimestepEmbedding | Linear;
  readonly addTimeProj?: Timesteps;
  readonly addEmbedding?: TimestepEmbedding | TextTimeEmbedding | TextImageTimeEmbedding | ImageTimeEmbedding;
  abstract readonly downBlocks: readonly DownBlock[];
  abstract readonly midBlock?: MidBlock;
  /** Width of the vector that all residual blocks see. */
  protected readonly tembChannels: number;
  readonly #className: string;
  readonly #settings: EncoderConfig;

  constructor(className: string, config: EncoderConfig, rng: Generator) {
    super();
    this.#className = className;
    this.#settings = config;
    const { blockOutChannels, convInKernel: kernel = 3, actFn, timeEmbeddingType = 'positional' } = config;
    const first = blockOutChannels[0];
    this.convIn = new Conv2d(config.inChannels, first, kernel, { padding: (kernel - 1) >> 1 }, rng);

    const fourier = timeEmbeddingType === 'fourier';
    const timeEmbedDim = config.timeEmbeddingDim ?? first * (fourier ? 2 : 4);
    if (fourier && timeEmbedDim % 2) throw new RangeError(`${className}: timeEmbeddingDim ${timeEmbedDim} is odd`);
    const { flipSinToCos, freqShift: downscaleFreqShift } = config;
    const inChannels = fourier ? timeEmbedDim : first;
    this.timeProj = fourier
      ? new GaussianFourierProjection({ embeddingSize: timeEmbedDim / 2, log: false, flipSinToCos }, rng)
      : new Timesteps(first, { flipSinToCos, downscaleFreqShift });
    const postActFn = config.timestepPostAct ?? undefined;
    const condProjDim = config.timeCondProjDim ?? undefined;
    this.timeEmbedding = new TimestepEmbedding({ inChannels, timeEmbedDim, actFn, postActFn, condProjDim }, rng);

    this.encoderHidProj = this.createContextProjection(rng);
    this.classEmbedding = this.createClassEmbedding(inChannels, timeEmbedDim, rng);
    if (config.additionEmbedType === 'text_time')
      this.addTimeProj = new Timesteps(this.field('additionTimeEmbedDim'), { flipSinToCos, downscaleFreqShift });
    this.addEmbedding = this.createAddedEmbedding(timeEmbedDim, rng);
    this.tembChannels = config.classEmbeddingsConcat ? 2 * timeEmbedDim : timeEmbedDim;
  }

  private createContextProjection(rng: Generator): ConditionEncoder['encoderHidProj'] {
    const { encoderHidDim, encoderHidDimType } = this.#settings;
    const type = encoderHidDimType ?? (encoderHidDim ? 'text_proj' : undefined);
    if (!type) return undefined;
    const [from, to] = [this.field('encoderHidDim'), this.field('crossAttentionDim')];
    if (type === 'text_proj') return new Linear(from, to, rng);
    return type === 'image_proj'
      ? new ImageProjection(from, to, 32, rng)
      : new TextImageProjection(from, to, to, 10, rng);
  }

  private createClassEmbedding(
    sinusoids: number,
    timeEmbedDim: number,
    rng: Generator,
  ): ConditionEncoder['classEmbedding'] {
    const { classEmbedType: type, numClassEmbeds, classEmbedActFn: actFn = this.#settings.actFn } = this.#settings;
    if (type === 'timestep') return new TimestepEmbedding({ inChannels: sinusoids, timeEmbedDim, actFn }, rng);
    if (type === 'identity') return undefined;
    if (!type) return numClassEmbeds ? new Embedding(numClassEmbeds, timeEmbedDim, rng) : undefined;
    const inChannels = this.field('projectionClassEmbeddingsInputDim');
    if (type === 'simple_projection') return new Linear(inChannels, timeEmbedDim, rng);
    return new TimestepEmbedding({ inChannels, timeEmbedDim }, rng);
  }

  private createAddedEmbedding(timeEmbedDim: number, rng: Generator): ConditionEncoder['addEmbedding'] {
    const { additionEmbedType: type, encoderHidDim, additionEmbedTypeNumHeads } = this.#settings;
    if (!type) return undefined;
    if (type === 'text_time')
      return new TimestepEmbedding({ inChannels: this.field('projectionClassEmbeddingsInputDim'), timeEmbedDim }, rng);
    if (type === 'text') {
      const width = encoderHidDim ?? this.field('crossAttentionDim');
      return new TextTimeEmbedding(width, timeEmbedDim, additionEmbedTypeNumHeads, rng);
    }
    if (type === 'text_image') {
      const width = this.field('crossAttentionDim');
      return new TextImageTimeEmbedding(width, width, timeEmbedDim, rng);
    }
    const Embed = type === 'image' ? ImageTimeEmbedding : ImageHintTimeEmbedding;
    return new Embed(this.field('encoderHidDim'), timeEmbedDim, rng);
  }

  /** A field that has to be one number, given what the others say. */
  private field(
    name: 'encoderHidDim' | 'crossAttentionDim' | 'projectionClassEmbeddingsInputDim' | 'additionTimeEmbedDim',
  ): number {
    const value = this.#settings[name];
    if (typeof value === 'number') return value;
    const { classEmbedType, additionEmbedType, encoderHidDimType } = this.#settings;
    const given = Object.entries({ classEmbedType, additionEmbedType, encoderHidDimType }).filter(([, type]) => type);
    throw new RangeError(
      `${this.#className}: ${name} is ${JSON.stringify(value) ?? 'missing'}, expected one number, as for ${given
        .map(([key, type]) => `${key} ${type}`)
        .join(' and ')}`,
    );
  }

  /** @throws Error that names the condition that the config asks for. */
  private needed(conditions: Conditions, name: keyof Conditions): Tensor {
    const value = conditions[name];
    if (value) return value;
    throw new Error(`${this.#className}: needs ${name}, as its config says`);
  }

  /** Timestep [], [1] or [N] and class as one vector [N, tembChannels]. */
  protected embedTime(batch: number, timestep: Tensor, conditions: Conditions): Tensor {
    const { classEmbedType, classEmbeddingsConcat } = this.#settings;
    const project = (values: Tensor) => this.timeProj.forward(values.cast('float32'));
    const times = timestep.rank === 0 ? timestep.reshape([1]) : timestep;
    const time = this.timeEmbedding.forward(project(times.expand([batch])), conditions.timestepCond);
    const { classLabels } = conditions;
    const conditional = this.classEmbedding !== undefined || classEmbedType === 'identity';
    if (!conditional && classLabels)
      throw new Error(`${this.#className}: got classLabels, but the model has no classes`);
    if (!conditional) return time;
    const labels = this.needed(conditions, 'classLabels');
    const embedded = this.classEmbedding?.forward(classEmbedType === 'timestep' ? project(labels) : labels) ?? labels;
    return classEmbeddingsConcat ? concat([time, embedded], 1) : time.add(embedded);
  }

  /** What is added to the timestep's vector [N, timeEmbedDim], if anything. */
  protected embedAdded(conditions: Conditions): Tensor | undefined {
    const { addEmbedding, addTimeProj } = this;
    if (addEmbedding instanceof TimestepEmbedding) {
      const text = this.needed(conditions, 'textEmbeds');
      const numbers = addTimeProj!.forward(this.needed(conditions, 'timeIds').reshape([-1]).cast('float32'));
      return addEmbedding.forward(concat([text, numbers.reshape([text.shape[0], -1])], 1));
    }
    if (addEmbedding instanceof TextTimeEmbedding)
      return addEmbedding.forward(this.needed(conditions, 'encoderHiddenStates'));
    if (addEmbedding instanceof TextImageTimeEmbedding)
      return addEmbedding.forward(
        conditions.textEmbeds ?? this.needed(conditions, 'encoderHiddenStates'),
        this.needed(conditions, 'imageEmbeds'),
      );
    return addEmbedding?.forward(this.needed(conditions, 'imageEmbeds'));
  }

  /** Channels that come beside the noisy image's, if any. */
  protected embedHint(conditions: Conditions): Tensor | undefined {
    return this.addEmbedding instanceof ImageHintTimeEmbedding
      ? this.addEmbedding.hint(this.needed(conditions, 'hint'))
      : undefined;
  }

  /** What positions attend to, at the width that the blocks expect. */
  protected context(conditions: Conditions, project = true): SpatialContext {
    const encoderHiddenStates = project ? this.projectedContext(conditions) : conditions.encoderHiddenStates;
    const { crossAttentionDim: width, downBlockTypes, midBlockType, upBlockTypes } = this.#settings;
    const shape = encoderHiddenStates?.shape;
    const used = `${downBlockTypes} ${midBlockType} ${upBlockTypes}`.includes('CrossAttn');
    if (used && typeof width === 'number' && shape?.at(-1) !== width)
      throw new RangeError(
        `${this.#className}: encoderHiddenStates ${shape ? `[${shape}]` : 'missing'}, expected [N, L, ${width}]`,
      );
    return {
      encoderHiddenStates,
      attentionMask: maskToScores(conditions.attentionMask),
      encoderAttentionMask: maskToScores(conditions.encoderAttentionMask),
    };
  }

  private projectedContext(conditions: Conditions): Tensor | undefined {
    const { encoderHidProj } = this;
    if (!encoderHidProj) return conditions.encoderHiddenStates;
    if (encoderHidProj instanceof ImageProjection)
      return encoderHidProj.forward(this.needed(conditions, 'imageEmbeds'));
    const text = this.needed(conditions, 'encoderHiddenStates');
    if (encoderHidProj instanceof Linear) return encoderHidProj.forward(text);
    return encoderHidProj.forward(text, this.needed(conditions, 'imageEmbeds'));
  }
}

/** [N, K], 1 or true to keep, as what is added to scores [N, 1, K]: 0 or -10000. */
const maskToScores = (mask?: Tensor): Tensor | undefined =>
  mask?.cast('float32').neg().add(1).mul(-10000).reshape([mask.shape[0], 1, -1]);
