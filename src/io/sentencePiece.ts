import { PbfReader } from 'pbf';
import { Charsmap } from './charsmap.js';

/** A piece of text that a unigram model knows. */
export interface Piece {
  readonly text: string;
  /** Logarithm of its probability. */
  readonly score: number;
  /** Default 'normal'. */
  readonly kind?: 'unknown' | 'control' | 'userDefined' | 'unused' | 'byte';
}

export interface UnigramOptions {
  /** What a text becomes before it is cut. */
  readonly charsmap?: Charsmap;
  /** A text begins with the sign of a space; default true. */
  readonly addDummyPrefix?: boolean;
  /** Spaces at the ends are dropped, and of several only one stays; default true. */
  readonly removeExtraWhitespaces?: boolean;
}

/** SentencePiece's sign of a space. */
const space = '▁';
/** How much less an unknown character is worth than the rarest piece. */
const unknownPenalty = 10;

/**
 * A unigram language model of text ("Subword Regularization", Kudo 2018): cuts a text into the pieces of the highest joint
 * probability, as SentencePiece does (its numbers in float32, so that ties fall alike).
 */
export class Unigram {
  private readonly ids: ReadonlyMap<string, number>;
  private readonly longest: number;
  private readonly unknownScore: number;
  private readonly bestScore: number;
  readonly unknownId: number;

  /** @throws Error without a piece for what is unknown. */
  constructor(
    readonly pieces: readonly Piece[],
    private readonly options: UnigramOptions = {},
  ) {
    const known = pieces.flatMap(({ kind, text }, id) =>
      kind === undefined || kind === 'userDefined' ? [[text, id] as const] : [],
    );
    this.ids = new Map(known);
    this.longest = known.reduce((most, [text]) => Math.max(most, text.length), 1);
    const scores = pieces.filter(({ kind }) => kind === undefined).map(({ score }) => score);
    this.unknownScore = scores.reduce((a, b) => Math.min(a, b), 0) - unknownPenalty;
    this.bestScore = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    this.unknownId = pieces.findIndex(({ kind }) => kind === 'unknown');
    if (this.unknownId < 0) throw new Error('unigram: no piece stands for what is unknown');
  }

  /** A text as it is cut: through the charsmap, its spaces as signs. */
  normalize(text: string): string {
    const { charsmap, addDummyPrefix = true, removeExtraWhitespaces = true } = this.options;
    const mapped = charsmap ? charsmap.normalize(text) : text;
    const tidy = removeExtraWhitespaces ? mapped.replace(/ +/g, ' ').replace(/^ | $/g, '') : mapped;
    if (tidy === '') return '';
    return `${addDummyPrefix ? space : ''}${tidy.replaceAll(' ', space)}`;
  }

  /** The ids of a text's pieces; what is unknown is one piece as long as it lasts. */
  encode(text: string): number[] {
    const normal = this.normalize(text);
    const ids: number[] = [];
    for (const id of this.cut(normal)) if (id !== this.unknownId || ids.at(-1) !== id) ids.push(id);
    return ids;
  }

  /** Viterbi: the best way to each place, from the best ways to the places before it. */
  private cut(text: string): number[] {
    const { fround } = Math;
    const best = new Float32Array(text.length + 1);
    const from = new Int32Array(text.length + 1).fill(-1);
    const piece = new Int32Array(text.length + 1);
    const offer = (begin: number, end: number, id: number, score: number) => {
      const sum = fround(fround(score) + best[begin]);
      if (from[end] !== -1 && sum <= best[end]) return;
      best[end] = sum;
      from[end] = begin;
      piece[end] = id;
    };
    for (let begin = 0; begin < text.length; ) {
      const next = begin + (text.codePointAt(begin)! > 0xffff ? 2 : 1);
      let alone = false;
      for (let end = next; end <= Math.min(text.length, begin + this.longest); end++) {
        const id = this.ids.get(text.slice(begin, end));
        if (id === undefined) continue;
        alone ||= end === next;
        offer(begin, end, id, this.scoreOf(id));
      }
      if (!alone) offer(begin, next, this.unknownId, this.unknownScore);
      begin = next;
    }
    const ids: number[] = [];
    for (let end = text.length; end > 0; end = from[end]) ids.push(piece[end]);
    return ids.reverse();
  }

  /** What the user defined is always taken whole. */
  private scoreOf(id: number): number {
    const { kind, text, score } = this.pieces[id];
    return kind === 'userDefined' ? new TextEncoder().encode(text).length * this.bestScore - 0.1 : score;
  }

  /** The text of pieces. @throws RangeError for an id that there is not. */
  decode(ids: Iterable<number>): string {
    const texts = Array.from(ids, (id) => {
      const piece = this.pieces[id];
      if (!piece) throw new RangeError(`unigram: token ${id} is not in the vocabulary`);
      return piece.kind === 'control' ? '' : piece.kind === 'unknown' ? ' \u2047 ' : piece.text;
    });
    return texts.join('').replaceAll(space, ' ').replace(/^ /, '');
  }
}

const kinds = [undefined, undefined, 'unknown', 'control', 'userDefined', 'unused', 'byte'] as const;

/**
 * Reads a model file of SentencePiece (`spiece.model`): protocol buffers, field numbers as in sentencepiece_model.proto.
 * @throws Error when it is none, or of another kind than unigram.
 */
export function readSentencePiece(bytes: Uint8Array): Unigram {
  const pieces: Piece[] = [];
  const normalizer: { -readonly [K in keyof UnigramOptions]: UnigramOptions[K] } = {};
  let type = 1;
  try {
    new PbfReader(bytes).readFields((tag, _, model) => {
      if (tag === 1) pieces.push(readPiece(model));
      if (tag === 2)
        model.readMessage((field, __, pbf) => {
          if (field === 3) type = pbf.readVarint();
        }, undefined);
      if (tag === 3)
        model.readMessage((field, __, pbf) => {
          if (field === 2) normalizer.charsmap = charsmapOf(pbf.readBytes());
          if (field === 3) normalizer.addDummyPrefix = pbf.readBoolean();
          if (field === 4) normalizer.removeExtraWhitespaces = pbf.readBoolean();
        }, undefined);
    }, undefined);
  } catch (cause) {
    throw new Error(`sentencepiece: not a readable model (${(cause as Error).message})`, { cause });
  }
  if (pieces.length === 0) throw new Error('sentencepiece: not a model: it has no pieces');
  if (type !== 1) throw new Error(`sentencepiece: a model of type ${type}, expected 1 (unigram)`);
  return new Unigram(pieces, normalizer);
}

function readPiece(model: PbfReader): Piece {
  const piece = { text: '', score: 0, kind: kinds[1] as Piece['kind'] };
  model.readMessage((field, _, pbf) => {
    if (field === 1) piece.text = pbf.readString();
    if (field === 2) piece.score = pbf.readFloat();
    if (field === 3) piece.kind = kinds[pbf.readVarint()];
  }, undefined);
  return piece;
}

/** An identity is written as nothing. */
export const charsmapOf = (blob: Uint8Array): Charsmap | undefined =>
  blob.length > 0 ? new Charsmap(blob.slice()) : undefined;
