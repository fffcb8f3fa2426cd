import { type NdArray, ndarray } from '../array/index.js';
import { fixText, unescapeHtml } from './fixText.js';

/** The files of a tokenizer folder by their names, as text: `vocab.json` and `merges.txt`, or `tokenizer.json`. */
export type TokenizerFiles = Readonly<Record<string, string>>;

export const tokenizerFileNames = [
  'vocab.json',
  'merges.txt',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'tokenizer.json',
] as const;

export interface EncodeOptions {
  /** Tokens per text with the first and the last one; longer texts are cut. Default: the tokenizer's. */
  readonly maxLength?: number;
  /** Pad to `maxLength` (the default), or to the longest text. */
  readonly padding?: 'maxLength' | 'longest';
}

export interface Encoding {
  /** [N, L] */
  readonly inputIds: NdArray<'int64'>;
  /** 1 up to the end of the text, 0 where it is padded: [N, L]. */
  readonly attentionMask: NdArray<'int64'>;
}

type Json = Readonly<Record<string, unknown>>;

/**
 * CLIP's byte-level BPE tokenizer (Radford et al. 2021), with the files of transformers' CLIPTokenizer and the text
 * clean-up of openai/CLIP: {@link fixText}, HTML entities, white space, small letters.
 */
export class ClipTokenizer {
  readonly bosTokenId: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
  /** Tokens per text with the first and the last one. */
  readonly modelMaxLength: number;
  private readonly ids: ReadonlyMap<string, number>;
  private readonly tokens: ReadonlyMap<number, string>;
  private readonly ranks: ReadonlyMap<string, number>;
  /** Splits a text at tokens that were added to the vocabulary. */
  private readonly added?: RegExp;

  /** @throws Error that names the file that is missing or wrong, or the special token that is not in the vocabulary. */
  constructor(readonly files: TokenizerFiles) {
    const { vocab, merges, added, settings } = read(files);
    this.ids = new Map([...Object.entries(vocab), ...added]);
    this.tokens = new Map([...this.ids].map(([token, id]) => [id, token]));
    this.ranks = new Map(merges.map((pair, rank) => [pair, rank]));
    const further = [...added.keys()].filter((token) => !Object.hasOwn(vocab, token));
    if (further.length > 0) this.added = new RegExp(`(${further.map(escaped).join('|')})`);
    const idOf = (name: string, normally: string): number => {
      const token = contentOf(settings[name]) ?? normally;
      const id = this.ids.get(token);
      if (id === undefined) throw new Error(`CLIP tokenizer: ${name} '${token}' is not in the vocabulary`);
      return id;
    };
    this.bosTokenId = idOf('bos_token', '<|startoftext|>');
    this.eosTokenId = idOf('eos_token', '<|endoftext|>');
    this.padTokenId = idOf('pad_token', '<|endoftext|>');
    const length = settings.model_max_length;
    this.modelMaxLength = typeof length === 'number' ? length : 77;
  }

  /** The pieces of a text, none for an empty one; a word's last piece ends with `</w>`. */
  tokenize(text: string): string[] {
    if (!this.added) return this.pieces(text);
    return text.split(this.added).flatMap((part, i) => (i % 2 ? [part] : this.pieces(part)));
  }

  /** The ids of a text's pieces, without a first and a last token, however many they are. */
  encode(text: string): number[] {
    return this.tokenize(text).map((token) => this.ids.get(token) ?? this.eosTokenId);
  }

  /**
   * Texts as a model takes them: first token, text, last token, padding.
   * @throws RangeError for a length below 2, or none given where the tokenizer has no limit.
   */
  encodeBatch(texts: readonly string[], options: EncodeOptions = {}): Encoding {
    const { maxLength = this.modelMaxLength, padding = 'maxLength' } = options;
    if (!(maxLength >= 2)) throw new RangeError(`CLIP tokenizer: maxLength ${maxLength}, expected at least 2`);
    const rows = texts.map((text) => [this.bosTokenId, ...this.encode(text).slice(0, maxLength - 2), this.eosTokenId]);
    const length = padding === 'longest' ? Math.max(0, ...rows.map((row) => row.length)) : maxLength;
    if (length > 1e6) throw new RangeError('CLIP tokenizer: has no limit of its own, pass maxLength to pad to');
    const table = (at: (row: readonly number[], i: number) => number) =>
      ndarray(
        BigInt64Array.from({ length: rows.length * length }, (_, i) =>
          BigInt(at(rows[Math.floor(i / length)], i % length)),
        ),
        [rows.length, length],
        'int64',
      );
    return {
      inputIds: table((row, i) => row[i] ?? this.padTokenId),
      attentionMask: table((row, i) => (i < row.length ? 1 : 0)),
    };
  }

  /**
   * The text of token ids as transformers decodes them: in small letters, with spaces between words and signs but for
   * those that English sets close. The first, the last and padding tokens are left out.
   * @throws RangeError for an id that is not in the vocabulary.
   */
  decode(ids: Iterable<number | bigint>): string {
    const special = new Set([this.bosTokenId, this.eosTokenId, this.padTokenId]);
    const tokens = Array.from(ids, Number).filter((id) => !special.has(id));
    const letters = tokens.map((id) => {
      const token = this.tokens.get(id);
      if (token === undefined) throw new RangeError(`CLIP tokenizer: token ${id} is not in the vocabulary`);
      return token;
    });
    const bytes = Uint8Array.from(letters.join(''), (letter) => byteOfLetter.get(letter) ?? 0x3f);
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes).replaceAll('</w>', ' ').trim();
    return [' .', ' ?', ' !', ' ,', " ' ", " n't", " 'm", " 's", " 've", " 're"].reduce(
      (tidy, spaced) => tidy.replaceAll(spaced, spaced.trim()),
      text,
    );
  }

  private pieces(text: string): string[] {
    return wordsOf(text).flatMap((found) => (special.test(found) ? [found] : this.merge(lettersOf(found))));
  }

  /** Joins the pair that was learnt first, wherever it stands, until none is left to join. */
  private merge(letters: string[]): string[] {
    let pieces = [...letters.slice(0, -1), `${letters.at(-1)}</w>`];
    for (;;) {
      let best: string | undefined;
      let lowest = Number.POSITIVE_INFINITY;
      for (let i = 1; i < pieces.length; i++) {
        const rank = this.ranks.get(`${pieces[i - 1]} ${pieces[i]}`) ?? Number.POSITIVE_INFINITY;
        if (rank < lowest) [best, lowest] = [`${pieces[i - 1]} ${pieces[i]}`, rank];
      }
      if (best === undefined) return pieces;
      const joined: string[] = [];
      for (let i = 0; i < pieces.length; i++)
        if (i + 1 < pieces.length && `${pieces[i]} ${pieces[i + 1]}` === best) joined.push(pieces[i] + pieces[++i]);
        else joined.push(pieces[i]);
      pieces = joined;
    }
  }
}

const special = /^<\|(?:start|end)oftext\|>$/;
const word = /<\|startoftext\|>|<\|endoftext\|>|'(?:[stmdſ]|re|ve|ll)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;

/** What a text is cut into before any merging, cleaned up. */
export const wordsOf = (text: string): string[] =>
  unescapeHtml(fixText(text)).trim().replace(/\s+/g, ' ').trim().toLowerCase().match(word) ?? [];

/** Bytes as letters that are neither white space nor controls: printable Latin-1 stands for itself, the rest follows. */
export const letterOfByte: readonly string[] = (() => {
  let next = 256;
  const printable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();
const byteOfLetter: ReadonlyMap<string, number> = new Map(letterOfByte.map((letter, byte) => [letter, byte]));
export const lettersOf = (text: string): string[] =>
  Array.from(new TextEncoder().encode(text), (byte) => letterOfByte[byte]);

interface Contents {
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly string[];
  readonly added: ReadonlyMap<string, number>;
  readonly settings: Json;
}

function read(files: TokenizerFiles): Contents {
  const json = (name: string): Json => (files[name] === undefined ? {} : parsed(name, files[name]));
  const config = json('tokenizer_config.json');
  const added = new Map(Object.entries(json('added_tokens.json') as Record<string, number>));
  for (const [id, token] of Object.entries((config.added_tokens_decoder ?? {}) as Json))
    added.set(contentOf(token) ?? '', Number(id));
  const settings = { ...config, ...json('special_tokens_map.json') };
  if (files['vocab.json'] !== undefined && files['merges.txt'] !== undefined) {
    const vocab = json('vocab.json') as Record<string, number>;
    // The first line tells the version.
    return { vocab, merges: linesOf(files['merges.txt']).slice(1), added, settings };
  }
  const whole = json('tokenizer.json') as {
    model?: { type?: string; vocab?: Record<string, number>; merges?: (string | string[])[] };
    added_tokens?: { id: number; content: string }[];
  };
  const { vocab, merges } = whole.model ?? {};
  if (!vocab || !merges)
    throw new Error('CLIP tokenizer: needs vocab.json and merges.txt, or a tokenizer.json with BPE');
  for (const { id, content } of whole.added_tokens ?? []) added.set(content, id);
  return { vocab, merges: merges.map((pair) => (typeof pair === 'string' ? pair : pair.join(' '))), added, settings };
}

const linesOf = (text: string): string[] => text.trim().split(/\r?\n/);

function parsed(name: string, text: string): Json {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Json;
  } catch (cause) {
    throw new Error(`CLIP tokenizer: ${name} is not valid JSON (${(cause as Error).message})`, { cause });
  }
  throw new Error(`CLIP tokenizer: ${name} must hold an object`);
}

/** A token as itself or as transformers' record of it. */
const contentOf = (token: unknown): string | undefined =>
  typeof token === 'string' ? token : (token as { content?: string } | null | undefined)?.content;

const escaped = (token: string): string => token.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
