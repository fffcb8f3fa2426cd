import type { z } from 'zod';
import { type NdArray, ndarray } from '../array/index.js';
import { ClipImageProcessor, parseFields, toRasters } from '../io/index.js';
import { buffer, type Linear, Module, ones } from '../nn/index.js';
import type { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor, type Variable } from '../tensor/index.js';
import { fromTransformersJson, normalLinear, toTransformersJson } from './clip.js';
import { CLIPVisionModel, clipVisionConfig } from './clipVision.js';
import { modelConfig, positive } from './config.js';

export const safetyCheckerConfig = modelConfig({
  projectionDim: positive.default(512),
  visionConfig: clipVisionConfig.prefault({}),
});
export type SafetyCheckerConfig = z.output<typeof safetyCheckerConfig>;
export type SafetyCheckerOptions = z.input<typeof safetyCheckerConfig>;

export interface SafetyVerdict {
  readonly unsafe: boolean;
  /** Indices of the concepts that were found, of 0..16. */
  readonly badConcepts: readonly number[];
  /** Indices of those that call for a stricter look, of 0..2. */
  readonly specialCare: readonly number[];
}

const concepts = 17;
const specialConcepts = 3;

/**
 * Stable Diffusion's safety checker, laid out as diffusers' StableDiffusionSafetyChecker: the cosine between a picture
 * and each of its concepts in CLIP's space, held against a threshold per concept.
 */
export class SafetyChecker extends Module {
  static readonly className = 'StableDiffusionSafetyChecker';
  readonly visionModel: CLIPVisionModel;
  readonly visualProjection: Linear;
  readonly conceptEmbeds: Variable;
  readonly specialCareEmbeds: Variable;
  readonly conceptEmbedsWeights: Variable;
  readonly specialCareEmbedsWeights: Variable;
  readonly config: SafetyCheckerConfig;

  /** @throws TypeError for a config field that is unknown or out of range, RangeError for fields that do not fit together. */
  constructor(options: SafetyCheckerOptions, rng: Generator) {
    super();
    this.config = parseFields(SafetyChecker.className, safetyCheckerConfig, options);
    const { projectionDim, visionConfig } = this.config;
    this.visionModel = new CLIPVisionModel(visionConfig, rng);
    this.visualProjection = normalLinear(
      visionConfig.hiddenSize,
      projectionDim,
      { std: visionConfig.hiddenSize ** -0.5, bias: false },
      rng,
    );
    this.conceptEmbeds = buffer(ones([concepts, projectionDim]));
    this.specialCareEmbeds = buffer(ones([specialConcepts, projectionDim]));
    this.conceptEmbedsWeights = buffer(ones([concepts]));
    this.specialCareEmbedsWeights = buffer(ones([specialConcepts]));
  }

  static fromJson(json: unknown, rng: Generator): SafetyChecker {
    const { vision_config: vision, ...rest } = (json ?? {}) as { readonly vision_config?: unknown };
    const visionConfig = fromTransformersJson(SafetyChecker.className, clipVisionConfig, vision ?? {});
    const config = fromTransformersJson(
      SafetyChecker.className,
      safetyCheckerConfig.pick({ projectionDim: true }),
      rest,
    );
    return new SafetyChecker({ ...config, visionConfig }, rng);
  }

  toJson(): Record<string, unknown> {
    const { visionConfig, ...rest } = this.config;
    const vision = toTransformersJson(CLIPVisionModel.className, 'clip_vision_model', visionConfig);
    return { ...toTransformersJson(SafetyChecker.className, 'clip', rest), vision_config: vision };
  }

  /**
   * @param images [N, 3, imageSize, imageSize] as ClipImageProcessor prepares them.
   * @returns how far each picture lies above the threshold of each concept: [N, 17], and [N, 3] of special care.
   */
  forward(images: Tensor): { concepts: Tensor; specialCare: Tensor } {
    const picture = unit(this.visualProjection.forward(this.visionModel.forward(images).poolerOutput));
    const above = (embeds: Tensor, thresholds: Tensor) => picture.matmul(unit(embeds).transpose()).sub(thresholds);
    return {
      concepts: above(this.conceptEmbeds, this.conceptEmbedsWeights),
      specialCare: above(this.specialCareEmbeds, this.specialCareEmbedsWeights),
    };
  }

  /**
   * Judges pictures as they come out of a pipeline.
   * @param images float32 [N, 3, H, W] in [-1, 1].
   * @param processor of the pipeline's feature_extractor/.
   */
  async check(
    images: NdArray<'float32'>,
    processor: ClipImageProcessor = new ClipImageProcessor(),
    how: CompileOptions = {},
  ): Promise<SafetyVerdict[]> {
    const score = compile((x: Tensor) => this.forward(x), { freeze: true, ...how });
    const scores = await score(processor.process(toRasters(images))).finally(() => score.release());
    return verdicts(scores.concepts, scores.specialCare);
  }
}

/** From scores [N, 17] and [N, 3]. Special care makes everything after it stricter by 0.01. */
export function verdicts(ofConcepts: NdArray, ofSpecialCare: NdArray): SafetyVerdict[] {
  const rowOf = ({ shape, data }: NdArray, n: number) =>
    Array.from(data.slice(n * shape[1], (n + 1) * shape[1]), Number);
  return Array.from({ length: ofConcepts.shape[0] }, (_, n) => {
    let stricter = 0;
    const found = (scores: readonly number[], onFound: () => void): number[] =>
      scores.flatMap((score, i) => {
        if (Math.round((score + stricter) * 1000) <= 0) return [];
        onFound();
        return [i];
      });
    const specialCare = found(rowOf(ofSpecialCare, n), () => {
      stricter = 0.01;
    });
    const badConcepts = found(rowOf(ofConcepts, n), () => {});
    return { unsafe: badConcepts.length > 0, badConcepts, specialCare };
  });
}

/** Each row divided by its length. */
const unit = (x: Tensor): Tensor => x.div(x.square().sum(-1, true).sqrt().maximum(1e-12));

/** The pictures [N, C, H, W], those judged unsafe in black (-1). */
export function blackened(images: NdArray<'float32'>, judged: readonly SafetyVerdict[]): NdArray<'float32'> {
  const data = images.data.slice();
  const size = data.length / judged.length;
  for (const [n, { unsafe }] of judged.entries()) if (unsafe) data.fill(-1, n * size, (n + 1) * size);
  return ndarray(data, images.shape);
}
