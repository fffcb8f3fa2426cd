import { type NdArray, ndarray } from '../array/index.js';
import type { ClipTokenizer } from '../io/index.js';
import { type CLIPTextModel, CLIPTextModelWithProjection } from '../models/index.js';
import { compile, concat, pad, type Tensor } from '../tensor/index.js';
import type { PromptEncoder, PromptOptions } from './textToImage.js';

/** One of CLIP's text towers with its tokenizer. */
export interface ClipTower {
  readonly tokenizer: ClipTokenizer;
  readonly model: CLIPTextModel;
}

/**
 * What a layer of the tower says, counted from the last (0), and the text's summary.
 * `normed`: through the final norm, as Stable Diffusion 1 and 2 have it.
 */
function states({ model }: ClipTower, inputIds: Tensor, skip: number, normed: boolean) {
  const result = model.forward(inputIds);
  const { hiddenStates } = result;
  if (!(Number.isInteger(skip) && skip >= 0 && skip < hiddenStates.length))
    throw new RangeError(`clipSkip ${skip}: expected a whole number from 0 to ${hiddenStates.length - 1}`);
  const hidden = hiddenStates[hiddenStates.length - 1 - skip];
  const pooled =
    model instanceof CLIPTextModelWithProjection ? model.forward(inputIds).textEmbeds : result.poolerOutput;
  return { hidden: normed ? model.textModel.finalLayerNorm.forward(hidden) : hidden, pooled };
}

/** Runs towers on prompts and releases them: text is encoded once for many steps. */
async function encoded<K extends string>(
  towers: readonly ClipTower[],
  prompts: readonly string[],
  build: (ids: readonly Tensor[]) => Record<K, Tensor>,
  { compile: how }: PromptOptions,
): Promise<Record<K, NdArray>> {
  const ids = towers.map(({ tokenizer }) => tokenizer.encodeBatch(prompts).inputIds);
  const f = compile((inputs: { ids: readonly Tensor[] }) => build(inputs.ids), { freeze: true, ...how });
  return (await f({ ids }).finally(() => f.release())) as Record<K, NdArray>;
}

/** Stable Diffusion 1 and 2: one tower's last layer, or an earlier one, through its final norm. */
export class ClipPrompts implements PromptEncoder {
  constructor(readonly tower: ClipTower) {}

  encode(prompts: readonly string[], options: PromptOptions) {
    const build = ([ids]: readonly Tensor[]) => ({
      encoderHiddenStates: states(this.tower, ids, options.clipSkip ?? 0, true).hidden,
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

  async encode(prompts: readonly string[], options: PromptOptions) {
    const skip = 1 + (options.clipSkip ?? 0);
    const build = (ids: readonly Tensor[]) => {
      const answers = this.towers.map((tower, i) => states(tower, ids[i], skip, false));
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

/** Stable Diffusion 3 without T5, which it was trained to do without: two towers, padded to the width of T5's. */
export class Sd3Prompts implements PromptEncoder {
  constructor(
    readonly towers: readonly ClipTower[],
    /** What the model's text embeddings are wide, and how many of them T5 would give. */
    readonly width = 4096,
    readonly t5Length = 256,
  ) {}

  encode(prompts: readonly string[], options: PromptOptions) {
    const skip = 1 + (options.clipSkip ?? 0);
    const build = (ids: readonly Tensor[]) => {
      const answers = this.towers.map((tower, i) => states(tower, ids[i], skip, false));
      const text = concat(
        answers.map(({ hidden }) => hidden),
        2,
      );
      const wide = pad(text, [
        [0, 0],
        [0, this.t5Length],
        [0, this.width - text.shape[2]],
      ]);
      return {
        encoderHiddenStates: wide,
        pooledProjections: concat(
          answers.map(({ pooled }) => pooled),
          1,
        ),
      };
    };
    return encoded(this.towers, prompts, build, options);
  }
}
