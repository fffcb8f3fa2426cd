import { z } from 'zod';
import { ndarray } from '../array/index.js';
import type { EncodeOptions, Encoding } from './clipTokenizer.js';
import { charsmapOf, type Piece, readSentencePiece, Unigram } from './sentencePiece.js';

/** The files of a tokenizer folder by their names: `spiece.model` or `tokenizer.json`. */
export type T5TokenizerFiles = Readonly<Record<string, Uint8Array>>;

export const t5TokenizerFileNames = [
  'spiece.model',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
] as const;

/**
 * T5's tokenizer: SentencePiece's unigram model, with the files of transformers' T5Tokenizer or T5TokenizerFast. Its
 * texts begin with no special token and end with `</s>`.
 */
export class T5Tokenizer {
  readonly eosTokenId: number;
  readonly padTokenId: number;
  /** Tokens per text with the last one, where nobody says otherwise. */
  readonly modelMaxLength: number;
  private readonly unigram: Unigram;
  /** Tokens beside the model's pieces (`<extra_id_0>` ...). */
  private readonly added: ReadonlyMap<string, number>;
  private readonly splitter?: RegExp;

  /** @throws Error that names the file that is missing or wrong, or the special token that is not there. */
  constructor(readonly files: T5TokenizerFiles) {
    const config = settings(files, 'tokenizer_config.json', configSchema);
    const listed = settings(files, 'added_tokens.json', z.record(z.string(), z.number()));
    const decoder = Object.entries(config.added_tokens_decoder ?? {});
    const { unigram, added } = readModel(files);
    this.unigram = unigram;
    this.added = new Map([
      ...added,
      ...Object.entries(listed),
      ...decoder.map(([id, { content }]) => [content, Number(id)] as const),
    ]);
    const words = [...this.added.keys()].sort((a, b) => b.length - a.length).map(escaped);
    if (words.length > 0) this.splitter = new RegExp(`(${words.join('|')})`);
    const special = settings(files, 'special_tokens_map.json', specialSchema);
    this.eosTokenId = this.idOf(contentOf(special.eos_token ?? config.eos_token) ?? '</s>', 'eos_token');
    this.padTokenId = this.idOf(contentOf(special.pad_token ?? config.pad_token) ?? '<pad>', 'pad_token');
    const { model_max_length: length = 512 } = config;
    this.modelMaxLength = length <= 1e6 ? length : 512;
  }

  /** The ids of a text's pieces, without the last token, however many they are. */
  encode(text: string): number[] {
    const parts = this.splitter ? text.split(this.splitter) : [text];
    return parts.flatMap((part, i) => (i % 2 ? [this.added.get(part)!] : this.unigram.encode(part)));
  }

  /**
   * Texts as a model takes them: text, last token, padding.
   * @throws RangeError for a length below 1.
   */
  encodeBatch(texts: readonly string[], options: EncodeOptions = {}): Encoding {
    const { maxLength = this.modelMaxLength, padding = 'maxLength' } = options;
    if (!(maxLength >= 1)) throw new RangeError(`T5 tokenizer: maxLength ${maxLength}, expected at least 1`);
    const rows = texts.map((text) => [...this.encode(text).slice(0, maxLength - 1), this.eosTokenId]);
    const length = padding === 'longest' ? Math.max(0, ...rows.map((row) => row.length)) : maxLength;
    const table = (at: (row: readonly number[], i: number) => number) =>
      ndarray(
        rows.flatMap((row) => Array.from({ length }, (_, i) => at(row, i))),
        [rows.length, length],
        'int64',
      );
    return {
      inputIds: table((row, i) => row[i] ?? this.padTokenId),
      attentionMask: table((row, i) => (i < row.length ? 1 : 0)),
    };
  }

  /** The text of token ids; the last token and padding are left out. @throws RangeError for an unknown id. */
  decode(ids: Iterable<number | bigint>): string {
    const names = new Map([...this.added].map(([text, id]) => [id, text]));
    const special = [this.eosTokenId, this.padTokenId];
    const own = Array.from(ids, Number).filter((id) => !special.includes(id));
    const runs: number[][] = [[]];
    for (const id of own)
      if (names.has(id)) runs.push([id], []);
      else runs.at(-1)!.push(id);
    return runs.map((run, i) => (i % 2 ? names.get(run[0])! : this.unigram.decode(run))).join('');
  }

  private idOf(token: string, name: string): number {
    const id = this.added.get(token) ?? this.unigram.pieces.findIndex(({ text }) => text === token);
    if (id < 0) throw new Error(`T5 tokenizer: ${name} '${token}' is not in the vocabulary`);
    return id;
  }
}

const token = z.union([z.string(), z.looseObject({ content: z.string() })]);
const specialSchema = z.looseObject({ eos_token: token.optional(), pad_token: token.optional() });
const configSchema = specialSchema.extend({
  model_max_length: z.number().positive().optional(),
  added_tokens_decoder: z.record(z.string(), z.looseObject({ content: z.string() })).optional(),
});

const contentOf = (given: z.output<typeof token> | undefined): string | undefined =>
  typeof given === 'object' ? given.content : given;

/** What transformers writes of its Unigram tokenizers. */
const fastSchema = z.looseObject({
  model: z.looseObject({
    type: z.string().nullish(),
    vocab: z.array(z.tuple([z.string(), z.number()])),
    unk_id: z.number(),
  }),
  normalizer: z.unknown(),
  added_tokens: z.array(z.looseObject({ id: z.number(), content: z.string() })).default([]),
});

function readModel(files: T5TokenizerFiles): { unigram: Unigram; added: ReadonlyMap<string, number> } {
  const spiece = files['spiece.model'];
  if (spiece) return { unigram: readSentencePiece(spiece), added: new Map() };
  if (!files['tokenizer.json']) throw new Error('T5 tokenizer: needs spiece.model or tokenizer.json');
  const kind = settings(files, 'tokenizer.json', z.looseObject({ model: z.looseObject({ type: z.string() }) }));
  if (kind.model.type !== 'Unigram')
    throw new Error(`T5 tokenizer: tokenizer.json holds a ${kind.model.type} model, expected Unigram`);
  const { model, normalizer, added_tokens: added } = settings(files, 'tokenizer.json', fastSchema);
  const special = new Set(added.map(({ id }) => id));
  const pieces = model.vocab.map(([text, score], id): Piece => {
    if (id === model.unk_id) return { text, score, kind: 'unknown' };
    return special.has(id) ? { text, score, kind: 'control' } : { text, score };
  });
  const blob = precompiled(normalizer);
  const charsmap = blob === undefined ? undefined : charsmapOf(Uint8Array.from(atob(blob), (c) => c.charCodeAt(0)));
  return {
    unigram: new Unigram(pieces, { charsmap }),
    added: new Map(added.map(({ content, id }) => [content, id])),
  };
}

/** The charsmap in base64, wherever in a sequence of normalisers it stands. */
function precompiled(normalizer: unknown): string | undefined {
  const part = normalizer as { precompiled_charsmap?: string; normalizers?: readonly unknown[] } | null | undefined;
  return part?.precompiled_charsmap ?? part?.normalizers?.map(precompiled).find((found) => found !== undefined);
}

/** A JSON file of the folder, checked; as if empty where it is missing. */
function settings<T>(files: T5TokenizerFiles, name: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(files[name] ? JSON.parse(new TextDecoder().decode(files[name])) : {});
  } catch (cause) {
    const what = cause instanceof z.ZodError ? z.prettifyError(cause) : (cause as Error).message;
    throw new Error(`T5 tokenizer: ${name}: ${what}`, { cause });
  }
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
