import { type NdArray, ndarray, zeros } from '../array/index.js';
import type { ClipTokenizer } from '../io/index.js';
import { type CLIPTextModel, CLIPTextModelWithProjection } from '../models/index.js';
import { withLowRanks } from '../nn/index.js';
import { compile, concat, pad, type Tensor } from '../tensor/index.js';
import { type PromptChunk, promptChunks } from './prompt.js';
import { type T5Tower, t5States } from './t5Prompts.js';
import type { PromptEncoder, PromptOptions, PromptSyntax } from './textToImage.js';

/** One of CLIP's text towers with its tokenizer. */
export interface ClipTower {
  readonly tokenizer: ClipTokenizer;
  readonly model: CLIPTextModel;
  /** Its folder in the pipeline; default: `text_encoder`, then `text_encoder_2`. */
  readonly part?: string;
}

/** What a tower is given: prompts in chunks, one below the other, and what else their meaning is made of. */
type TowerInputs = {
  /** [prompts * chunks, L] */
  readonly ids: Tensor;
  /** Where a part of a prompt is weighted: [prompts * chunks, L, 1]. */
  readonly weights?: Tensor;
  /** With weights, the empty prompt: [1, L]. */
  readonly empty?: Tensor;
};

/**
 * What a layer of the tower says, counted from the last (0), the chunks of a prompt side by side; and the summary of
 * each prompt's first chunk. `normed`: through the final norm, as Stable Diffusion 1 and 2 have it.
 */
function states({ model }: ClipTower, inputs: TowerInputs, prompts: number, skip: number, normed: boolean) {
  const { ids, weights, empty } = inputs;
  const layers = model.config.numHiddenLayers;
  if (!(Number.isInteger(skip) && skip >= 0 && skip <= layers))
    throw new RangeError(`clipSkip ${skip}: expected a whole number from 0 to ${layers}`);
  const hiddenOf = (ids: Tensor) => {
    const hidden = model.forward(ids).hiddenStates[layers - skip];
    return normed ? model.textModel.finalLayerNorm.forward(hidden) : hidden;
  };
  const plain = hiddenOf(ids);
  // A weight moves a token away from what it would say in an empty prompt, or towards it (as ComfyUI does).
  const neutral = empty && hiddenOf(empty);
  const hidden = weights && neutral ? neutral.add(plain.sub(neutral).mul(weights)) : plain;
  const { poolerOutput } = model.forward(ids);
  const summary = model instanceof CLIPTextModelWithProjection ? model.forward(ids).textEmbeds : poolerOutput;
  const pooled = summary.reshape([prompts, -1, summary.shape[1]]).slice(1, 0, 1).squeeze(1);
  return { hidden: hidden.reshape([prompts, -1, hidden.shape[2]]), pooled };
}

const byPart = (towers: readonly ClipTower[]): Readonly<Record<string, CLIPTextModel>> =>
  Object.fromEntries(
    towers.map(({ model, part }, i) => [part ?? (i === 0 ? 'text_encoder' : `text_encoder_${i + 1}`), model]),
  );

/** Runs towers on prompts and releases them: text is encoded once for many steps. */
async function encoded<K extends string>(
  towers: readonly ClipTower[],
  prompts: readonly string[],
  build: (inputs: readonly TowerInputs[]) => Record<K, Tensor>,
  options: PromptOptions,
): Promise<Record<K, NdArray>> {
  const inputs = towers.map((tower) => towerInputs(tower, prompts, options.promptSyntax));
  const f = compile(
    (given: { inputs: readonly TowerInputs[] }) => withLowRanks(options.loras ?? [], () => build(given.inputs)),
    { freeze: true, ...options.compile },
  );
  return (await f({ inputs }).finally(() => f.release())) as Record<K, NdArray>;
}

function towerInputs({ tokenizer, model }: ClipTower, prompts: readonly string[], syntax: PromptSyntax = 'weighted') {
  const length = Math.min(tokenizer.modelMaxLength, model.config.maxPositionEmbeddings);
  if (syntax === 'plain') return { ids: tokenizer.encodeBatch(prompts, { maxLength: length }).inputIds };
  const { bosTokenId, eosTokenId, padTokenId } = tokenizer;
  const chunked = prompts.map((prompt) => promptChunks(tokenizer, prompt, length - 2));
  const most = Math.max(...chunked.map((chunks) => chunks.length));
  const chunks = chunked.flatMap((own) => Array.from({ length: most }, (_, i) => own[i] ?? { ids: [], weights: [] }));
  const idsOf = (rows: readonly PromptChunk[]) => {
    const padded = rows.flatMap(({ ids }) => {
      const row = [bosTokenId, ...ids, eosTokenId];
      return Array.from({ length }, (_, i) => row[i] ?? padTokenId);
    });
    return ndarray(padded, [rows.length, length], 'int64');
  };
  const ids = idsOf(chunks);
  if (chunks.every(({ weights }) => weights.every((weight) => weight === 1))) return { ids };
  const weights = chunks.flatMap((chunk) => Array.from({ length }, (_, i) => chunk.weights[i - 1] ?? 1));
  return { ids, weights: ndarray(weights, [chunks.length, length, 1]), empty: idsOf([{ ids: [], weights: [] }]) };
}

/** Stable Diffusion 1 and 2: one tower's last layer, or an earlier one, through its final norm. */
export class ClipPrompts implements PromptEncoder {
  constructor(readonly tower: ClipTower) {}

  get textEncoders() {
    return byPart([this.tower]);
  }

  encode(prompts: readonly string[], options: PromptOptions) {
    const build = ([inputs]: readonly TowerInputs[]) => ({
      encoderHiddenStates: states(this.tower, inputs, prompts.length, options.clipSkip ?? 0, true).hidden,
    });
    return encoded([this.tower], prompts, build, options);
  }
}

/** Stable Diffusion XL: the last layer but one of two towers side by side, the second one's summary, and sizes. */
export class SdxlPrompts implements PromptEncoder {
  constructor(
    readonly towers: readonly ClipTower[],
    /** As the folder says: the empty prompt is zeros. */
    readonly zeroEmptyPrompt = true,
  ) {}

  get textEncoders() {
    return byPart(this.towers);
  }

  async encode(prompts: readonly string[], options: PromptOptions) {
    const skip = 1 + (options.clipSkip ?? 0);
    const build = (inputs: readonly TowerInputs[]) => {
      const answers = this.towers.map((tower, i) => states(tower, inputs[i], prompts.length, skip, false));
      return {
        encoderHiddenStates: concat(
          answers.map(({ hidden }) => hidden),
          2,
        ),
        textEmbeds: answers.at(-1)!.pooled,
      };
    };
    const arrays = await encoded(this.towers, prompts, build, options);
    if (this.zeroEmptyPrompt) for (const array of Object.values(arrays)) blank(array, prompts);
    const [height, width] = options.size;
    const sizes = prompts.flatMap(() => [height, width, 0, 0, height, width]);
    return { ...arrays, timeIds: ndarray(sizes, [prompts.length, 6]) };
  }
}

/** Zeros for the rows of empty prompts. */
function blank({ shape, data }: NdArray, prompts: readonly string[]): void {
  const size = data.length / shape[0];
  for (const [i, prompt] of prompts.entries())
    if (prompt === '') (data as Float32Array).fill(0, i * size, (i + 1) * size);
}

/** Stable Diffusion 3: two towers side by side, padded to the width of T5's, then what T5 says; without it, zeros. */
export class Sd3Prompts implements PromptEncoder {
  constructor(
    readonly towers: readonly ClipTower[],
    /** What the model's text embeddings are wide, and how many of them T5 gives. */
    readonly width = 4096,
    readonly t5Length = 256,
    /** The model was trained to do without, too. */
    readonly t5?: T5Tower,
  ) {}

  get textEncoders() {
    return byPart(this.towers);
  }

  async encode(prompts: readonly string[], options: PromptOptions) {
    const skip = 1 + (options.clipSkip ?? 0);
    const build = (inputs: readonly TowerInputs[]) => {
      const answers = this.towers.map((tower, i) => states(tower, inputs[i], prompts.length, skip, false));
      const text = concat(
        answers.map(({ hidden }) => hidden),
        2,
      );
      const wide = pad(text, [
        [0, 0],
        [0, 0],
        [0, this.width - text.shape[2]],
      ]);
      return {
        clip: wide,
        pooledProjections: concat(
          answers.map(({ pooled }) => pooled),
          1,
        ),
      };
    };
    const { clip, pooledProjections } = await encoded(this.towers, prompts, build, options);
    const t5 = this.t5
      ? (await t5States(this.t5, prompts, { length: this.t5Length, masked: false }, options)).hidden
      : zeros([prompts.length, this.t5Length, this.width]);
    return { encoderHiddenStates: inSequence(clip as NdArray<'float32'>, t5), pooledProjections };
  }
}

/** Tokens [N, L, C] of two encoders, one after the other. */
function inSequence(a: NdArray<'float32'>, b: NdArray<'float32'>): NdArray<'float32'> {
  const [n, , width] = a.shape;
  const [first, second] = [a, b].map(({ shape }) => shape[1] * width);
  const data = new Float32Array(n * (first + second));
  for (let i = 0; i < n; i++) {
    data.set(a.data.subarray(i * first, (i + 1) * first), i * (first + second));
    data.set(b.data.subarray(i * second, (i + 1) * second), i * (first + second) + first);
  }
  return ndarray(data, [n, a.shape[1] + b.shape[1], width]);
}
