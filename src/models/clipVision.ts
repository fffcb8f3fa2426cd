import type { z } from 'zod';
import { ndarray } from '../array/index.js';
import { parseFields } from '../io/index.js';
import { Conv2d, Embedding, LayerNorm, Module, parameter } from '../nn/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { concat, type Tensor, type Variable } from '../tensor/index.js';
import { ClipEncoder, clipTowerFields } from './clip.js';
import { modelConfig, positive } from './config.js';

/** The fields of transformers' CLIPVisionConfig that shape the network. */
export const clipVisionConfig = modelConfig({
  hiddenSize: positive.default(768),
  intermediateSize: positive.default(3072),
  numAttentionHeads: positive.default(12),
  numChannels: positive.default(3),
  /** Height and width of the pictures. */
  imageSize: positive.default(224),
  patchSize: positive.default(32),
  ...clipTowerFields,
});
export type ClipVisionConfig = z.output<typeof clipVisionConfig>;
export type ClipVisionOptions = z.input<typeof clipVisionConfig>;

export type ClipVisionStates = {
  /** [N, 1 + patches, hiddenSize], before the last norm. */
  readonly lastHiddenState: Tensor;
  /** The class token after the last norm: [N, hiddenSize]. */
  readonly poolerOutput: Tensor;
  /** numLayers + 1 of [N, 1 + patches, hiddenSize]. */
  readonly hiddenStates: readonly Tensor[];
};

class ClipVisionEmbeddings extends Module {
  /** [hiddenSize] */
  readonly classEmbedding: Variable;
  readonly patchEmbedding: Conv2d;
  readonly positionEmbedding: Embedding;

  constructor(
    private readonly config: ClipVisionConfig,
    rng: Generator,
  ) {
    super();
    const { hiddenSize, numChannels, imageSize, patchSize, initializerRange, initializerFactor: factor } = config;
    const normal = (variable: Variable, std: number) => variable.set(normalWeights(rng, variable.shape, { std }));
    this.classEmbedding = parameter(ndarray(new Float32Array(hiddenSize)));
    normal(this.classEmbedding, factor / Math.sqrt(hiddenSize));
    this.patchEmbedding = new Conv2d(numChannels, hiddenSize, patchSize, { stride: patchSize, bias: false }, rng);
    normal(this.patchEmbedding.weight, initializerRange * factor);
    this.positionEmbedding = new Embedding(Math.floor(imageSize / patchSize) ** 2 + 1, hiddenSize, rng);
    normal(this.positionEmbedding.weight, initializerRange * factor);
  }

  forward(images: Tensor): Tensor {
    const { imageSize, hiddenSize, numChannels } = this.config;
    const [n, ...size] = images.shape;
    if (`${size}` !== `${[numChannels, imageSize, imageSize]}`)
      throw new RangeError(
        `CLIPVisionModel: pictures [${images.shape}], expected [N, ${numChannels}, ${imageSize}, ${imageSize}]`,
      );
    const patches = this.patchEmbedding.forward(images).reshape([n, hiddenSize, -1]).swapAxes(1, 2);
    const whole = this.classEmbedding.reshape([1, 1, hiddenSize]).expand([n, 1, hiddenSize]);
    return concat([whole, patches], 1).add(this.positionEmbedding.weight);
  }
}

class ClipVisionTransformer extends Module {
  readonly embeddings: ClipVisionEmbeddings;
  /** Spelt as in checkpoints. */
  readonly preLayrnorm: LayerNorm;
  readonly encoder: ClipEncoder;
  readonly postLayernorm: LayerNorm;

  constructor(config: ClipVisionConfig, rng: Generator) {
    super();
    const { hiddenSize, layerNormEps: eps } = config;
    this.embeddings = new ClipVisionEmbeddings(config, rng);
    this.preLayrnorm = new LayerNorm(hiddenSize, { eps });
    this.encoder = new ClipEncoder(config, rng);
    this.postLayernorm = new LayerNorm(hiddenSize, { eps });
  }

  forward(images: Tensor): ClipVisionStates {
    const hiddenStates = this.encoder.forward(this.preLayrnorm.forward(this.embeddings.forward(images)));
    const lastHiddenState = hiddenStates.at(-1)!;
    const poolerOutput = this.postLayernorm.forward(lastHiddenState.slice(1, 0, 1).squeeze(1));
    return { lastHiddenState, poolerOutput, hiddenStates };
  }
}

/** The image tower of CLIP (Radford et al. 2021), laid out as transformers' CLIPVisionModel. */
export class CLIPVisionModel extends Module {
  static readonly className = 'CLIPVisionModel';
  readonly visionModel: ClipVisionTransformer;
  readonly config: ClipVisionConfig;

  /**
   * @param rng initial weights are drawn from it, as widely as transformers does.
   * @throws TypeError for a config field that is unknown or out of range, RangeError for fields that do not fit together.
   */
  constructor(options: ClipVisionOptions, rng: Generator) {
    super();
    this.config = parseFields(CLIPVisionModel.className, clipVisionConfig, options);
    this.visionModel = new ClipVisionTransformer(this.config, rng);
  }

  /** @param images [N, numChannels, imageSize, imageSize] as ClipImageProcessor prepares them. @throws RangeError for another size. */
  forward(images: Tensor): ClipVisionStates {
    return this.visionModel.forward(images);
  }
}
