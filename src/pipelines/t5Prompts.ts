import { type NdArray, ndarray } from '../array/index.js';
import type { T5Tokenizer } from '../io/index.js';
import type { T5EncoderModel } from '../models/index.js';
import { compile, type Tensor } from '../tensor/index.js';
import { parsePrompt } from './prompt.js';
import type { PromptEncoder, PromptOptions } from './textToImage.js';

/** T5's encoder with its tokenizer. */
export interface T5Tower {
  readonly tokenizer: T5Tokenizer;
  readonly model: T5EncoderModel;
}

type T5Inputs = {
  /** [prompts, L] */
  readonly ids: Tensor;
  /** [prompts, L], 1 where a token counts. */
  readonly mask: Tensor;
  /** Where a part of a prompt is weighted: [prompts, L, 1]. */
  readonly weights?: Tensor;
  /** With weights, the empty prompt and its mask: [1, L]. */
  readonly empty?: Tensor;
  readonly emptyMask?: Tensor;
};

interface PromptLength {
  /** Tokens that a prompt is padded to. Longer ones stay whole when weighted, and are cut off when plain. */
  readonly length: number;
  /** Tokens attend to those of the prompt only; else to the padding, too, as Stable Diffusion 3 was trained. */
  readonly masked: boolean;
}

/**
 * What T5 says of prompts: states [N, L, dModel], and which of their tokens count: [N, L].
 * A weight moves a token away from what it would say in an empty prompt, or towards it.
 */
export async function t5States(
  { tokenizer, model }: T5Tower,
  prompts: readonly string[],
  { length, masked }: PromptLength,
  { promptSyntax = 'weighted', compile: how }: PromptOptions,
): Promise<{ hidden: NdArray<'float32'>; mask: NdArray }> {
  const inputs = promptSyntax === 'plain' ? plain(tokenizer, prompts, length) : weighted(tokenizer, prompts, length);
  const f = compile(
    ({ ids, mask, weights, empty, emptyMask }: T5Inputs) => {
      const said = (ids: Tensor, mask?: Tensor) => model.forward(ids, masked ? { attentionMask: mask } : {});
      const hidden = said(ids, mask);
      const neutral = empty && said(empty, emptyMask);
      return { hidden: weights && neutral ? neutral.add(hidden.sub(neutral).mul(weights)) : hidden };
    },
    { freeze: true, ...how },
  );
  const { hidden } = await f(inputs).finally(() => f.release());
  return { hidden: hidden as NdArray<'float32'>, mask: inputs.mask };
}

function plain(tokenizer: T5Tokenizer, prompts: readonly string[], maxLength: number) {
  const { inputIds: ids, attentionMask: mask } = tokenizer.encodeBatch(prompts, { maxLength });
  return { ids, mask };
}

function weighted(tokenizer: T5Tokenizer, prompts: readonly string[], least: number) {
  const { eosTokenId, padTokenId } = tokenizer;
  const read = prompts.map((prompt) => {
    const parts = parsePrompt(prompt)
      .flat()
      .map(({ text, weight }) => ({ ids: tokenizer.encode(text), weight }));
    return {
      ids: [...parts.flatMap(({ ids }) => ids), eosTokenId],
      weights: parts.flatMap(({ ids, weight }) => ids.map(() => weight)),
    };
  });
  const length = read.reduce((most, { ids }) => Math.max(most, ids.length), least);
  const table = (rows: readonly (readonly number[])[], at: (row: readonly number[], i: number) => number) =>
    ndarray(
      rows.flatMap((row) => Array.from({ length }, (_, i) => at(row, i))),
      [rows.length, length],
      'int64',
    );
  const idsOf = (rows: readonly (readonly number[])[]) => table(rows, (row, i) => row[i] ?? padTokenId);
  const maskOf = (rows: readonly (readonly number[])[]) => table(rows, (row, i) => (i < row.length ? 1 : 0));
  const rows = read.map(({ ids }) => ids);
  const inputs = { ids: idsOf(rows), mask: maskOf(rows) };
  if (read.every(({ weights }) => weights.every((weight) => weight === 1))) return inputs;
  const weights = read.flatMap(({ weights }) => Array.from({ length }, (_, i) => weights[i] ?? 1));
  return {
    ...inputs,
    weights: ndarray(weights, [rows.length, length, 1]),
    empty: idsOf([[eosTokenId]]),
    emptyMask: maskOf([[eosTokenId]]),
  };
}

/** PixArt: T5's states of the prompt in small letters, masked, and where the model wants it the picture's size. */
export class PixArtPrompts implements PromptEncoder {
  constructor(
    readonly tower: T5Tower,
    /** Tokens of a prompt: 120 for PixArt-alpha, 300 for PixArt-sigma. */
    readonly length: number,
    readonly tellSize: boolean,
  ) {}

  async encode(prompts: readonly string[], options: PromptOptions) {
    const texts = prompts.map((prompt) => prompt.toLowerCase().trim());
    const { hidden, mask } = await t5States(this.tower, texts, { length: this.length, masked: true }, options);
    const conditions = { encoderHiddenStates: hidden, encoderAttentionMask: mask };
    if (!this.tellSize) return conditions;
    const [height, width] = options.size;
    const each = (...numbers: readonly number[]) =>
      ndarray(
        prompts.flatMap(() => numbers),
        [prompts.length, numbers.length],
      );
    return { ...conditions, resolution: each(height, width), aspectRatio: each(height / width) };
  }
}
