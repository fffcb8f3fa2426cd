import { z } from 'zod';
import { ndarray } from '../array/index.js';
import { parseFields } from '../io/index.js';
import { Embedding, LayerNorm, type Linear, Module } from '../nn/index.js';
import { type Generator, normalWeights } from '../random/index.js';
import { constant, gatherElements, type Tensor, where } from '../tensor/index.js';
import { ClipEncoder, clipTowerFields, normalLinear } from './clip.js';
import { modelConfig, positive } from './config.js';

const tokenId = z.number().int().nonnegative();

/** The fields of transformers' CLIPTextConfig that shape the network. */
export const clipTextConfig = modelConfig({
  vocabSize: positive.default(49408),
  hiddenSize: positive.default(512),
  intermediateSize: positive.default(2048),
  numAttentionHeads: positive.default(8),
  maxPositionEmbeddings: positive.default(77),
  ...clipTowerFields,
  padTokenId: tokenId.nullish().default(1),
  bosTokenId: tokenId.nullish().default(49406),
  /** The text's summary is read at the first token of this id; 2, in older configs: at the highest id. */
  eosTokenId: tokenId.default(49407),
});
export type ClipTextConfig = z.output<typeof clipTextConfig>;
export type ClipTextOptions = z.input<typeof clipTextConfig>;

export interface ClipTextInputs {
  /** [N, L], 1 where a token counts and 0 where it does not; default: all count. */
  readonly attentionMask?: Tensor;
  /** int64 [1 or N, L]; default: 0, 1, 2 ... */
  readonly positionIds?: Tensor;
}

export type ClipTextStates = {
  /** After the final norm: [N, L, hiddenSize]. */
  readonly lastHiddenState: Tensor;
  /** `lastHiddenState` at the end of the text: [N, hiddenSize]. */
  readonly poolerOutput: Tensor;
  /** The embeddings and each layer's result, before the final norm: numHiddenLayers + 1 of [N, L, hiddenSize]. */
  readonly hiddenStates: readonly Tensor[];
};

class ClipTextEmbeddings extends Module {
  readonly tokenEmbedding: Embedding;
  readonly positionEmbedding: Embedding;

  constructor({ vocabSize, maxPositionEmbeddings, hiddenSize, initializerFactor }: ClipTextConfig, rng: Generator) {
    super();
    const table = (count: number) => {
      const embedding = new Embedding(count, hiddenSize, rng);
      embedding.weight.set(normalWeights(rng, [count, hiddenSize], { std: 0.02 * initializerFactor }));
      return embedding;
    };
    this.tokenEmbedding = table(vocabSize);
    this.positionEmbedding = table(maxPositionEmbeddings);
  }

  forward(inputIds: Tensor, positionIds?: Tensor): Tensor {
    const length = inputIds.shape[1];
    const { weight } = this.positionEmbedding;
    if (length > weight.shape[0])
      throw new RangeError(`CLIPTextModel: ${length} tokens, expected at most ${weight.shape[0]}`);
    const positions = positionIds ? this.positionEmbedding.forward(positionIds) : weight.slice(0, 0, length);
    return this.tokenEmbedding.forward(inputIds).add(positions);
  }
}

class ClipTextTransformer extends Module {
  readonly embeddings: ClipTextEmbeddings;
  readonly encoder: ClipEncoder;
  readonly finalLayerNorm: LayerNorm;

  constructor(
    private readonly config: ClipTextConfig,
    rng: Generator,
  ) {
    super();
    this.embeddings = new ClipTextEmbeddings(config, rng);
    this.encoder = new ClipEncoder(config, rng);
    this.finalLayerNorm = new LayerNorm(config.hiddenSize, { eps: config.layerNormEps });
  }

  forward(inputIds: Tensor, { attentionMask, positionIds }: ClipTextInputs): ClipTextStates {
    if (inputIds.rank !== 2) throw new RangeError(`CLIPTextModel: token ids [${inputIds.shape}], expected [N, L]`);
    const [n, length] = inputIds.shape;
    const mask = attentionMask
      ? causalMask(length).add(
          where(attentionMask.cast('bool').reshape([n, 1, 1, length]), constant(0), constant(lowest)),
        )
      : causalMask(length);
    const hiddenStates = this.encoder.forward(this.embeddings.forward(inputIds, positionIds), mask);
    const lastHiddenState = this.finalLayerNorm.forward(hiddenStates.at(-1)!);
    const at = this.endOf(inputIds).reshape([n, 1, 1]).expand([n, 1, this.config.hiddenSize]);
    return { lastHiddenState, poolerOutput: gatherElements(lastHiddenState, at, 1).squeeze(1), hiddenStates };
  }

  /** The position [N] at which a text is summed up. */
  private endOf(inputIds: Tensor): Tensor {
    const { eosTokenId } = this.config;
    return (eosTokenId === 2 ? inputIds : inputIds.equal(eosTokenId)).cast('float32').argmax(1);
  }
}

/** transformers adds float32's lowest number where attention may not go, even twice: a row never comes out empty. */
const lowest = -3.4028234663852886e38;
function causalMask(length: number): Tensor {
  const mask = Float32Array.from({ length: length * length }, (_, i) => (i % length > i / length ? lowest : 0));
  return constant(ndarray(mask, [1, 1, length, length]));
}

/** The text tower of CLIP (Radford et al. 2021), laid out as transformers' CLIPTextModel: Stable Diffusion's text encoder. */
export class CLIPTextModel extends Module {
  static readonly className: string = 'CLIPTextModel';
  readonly textModel: ClipTextTransformer;
  readonly config: ClipTextConfig;

  /**
   * @param rng initial weights are drawn from it, as widely as transformers does.
   * @throws TypeError for a config field that is unknown or out of range, RangeError for fields that do not fit together.
   */
  constructor(options: ClipTextOptions, rng: Generator) {
    super();
    this.config = parseFields(CLIPTextModel.className, clipTextConfig, options);
    this.textModel = new ClipTextTransformer(this.config, rng);
  }

  /**
   * @param inputIds int64 [N, L], L at most maxPositionEmbeddings.
   * @throws RangeError for token ids of another shape.
   */
  forward(inputIds: Tensor, inputs: ClipTextInputs = {}): ClipTextStates {
    return this.textModel.forward(inputIds, inputs);
  }
}

/** {@link CLIPTextModel} with its summary projected to the space that texts and images share: SDXL's second text encoder. */
export class CLIPTextModelWithProjection extends CLIPTextModel {
  static override readonly className = 'CLIPTextModelWithProjection';
  readonly textProjection: Linear;

  constructor(options: ClipTextOptions, rng: Generator) {
    super(options, rng);
    const { hiddenSize, projectionDim, initializerFactor } = this.config;
    const std = initializerFactor / Math.sqrt(hiddenSize);
    this.textProjection = normalLinear(hiddenSize, projectionDim, { std, bias: false }, rng);
  }

  /** @returns besides the states, `textEmbeds` [N, projectionDim]. */
  override forward(inputIds: Tensor, inputs: ClipTextInputs = {}): ClipTextStates & { textEmbeds: Tensor } {
    const states = super.forward(inputIds, inputs);
    return { ...states, textEmbeds: this.textProjection.forward(states.poolerOutput) };
  }
}
