import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readSentencePiece, Unigram } from './sentencePiece.js';
import { T5Tokenizer } from './t5Tokenizer.js';

/** 60 pieces learnt from a few lines, with a small normalisation of its own: `spm_train` made it. */
const spiece = new Uint8Array(readFileSync(new URL('fixtures/spiece.model', import.meta.url)));
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

describe('SentencePiece', () => {
  it.each([
    ['a photo of a cat', [5, 24, 7, 8, 6, 8, 12, 14, 5, 16]],
    ['  a  photo of a cat ', [5, 24, 7, 8, 6, 8, 12, 14, 5, 16]],
    ['the red cat\u{1f63a}\u{1f63a}', [3, 6, 7, 4, 3, 19, 9, 16, 2]],
    ['ａｂ　sea\tcafe\u0301', [5, 22, 17, 4, 10, 3, 35, 10, 14, 2]],
    ['', []],
  ])('%j is cut as spm_encode cuts it', (text, ids) => {
    expect(readSentencePiece(spiece).encode(text)).toEqual(ids);
  });

  it('gives the text back', () => {
    const unigram = readSentencePiece(spiece);
    expect(unigram.decode(unigram.encode('a red cat on a mat'))).toBe('a red cat on a mat');
  });

  it('takes the likeliest pieces, and is told what is unknown', () => {
    const pieces = [
      { text: '<unk>', score: 0, kind: 'unknown' as const },
      ...Object.entries({ '▁': -1, a: -2, b: -2, ab: -3, '▁a': -2.5 }).map(([text, score]) => ({ text, score })),
    ];
    expect(new Unigram(pieces).encode('ab')).toEqual([1, 4]);
    expect(new Unigram(pieces).encode('a☃☃b')).toEqual([5, 0, 3]);
    expect(() => new Unigram(pieces.slice(1))).toThrow('no piece stands for what is unknown');
  });

  it('refuses what is no model of its kind', () => {
    expect(() => readSentencePiece(new TextEncoder().encode('not a model at all'))).toThrow('sentencepiece: not a');
    expect(() => readSentencePiece(new Uint8Array())).toThrow('it has no pieces');
  });
});

describe('T5Tokenizer', () => {
  it('ends and pads texts, and cuts long ones', () => {
    const { inputIds, attentionMask } = new T5Tokenizer({ 'spiece.model': spiece }).encodeBatch(['a photo of', ''], {
      maxLength: 4,
    });
    expect([...inputIds.data].map(Number)).toEqual([5, 24, 7, 1, 1, 0, 0, 0]);
    expect([...attentionMask.data].map(Number)).toEqual([1, 1, 1, 1, 1, 0, 0, 0]);
  });

  it('reads tokenizer.json, whose special tokens are not letters', () => {
    const { pieces } = readSentencePiece(spiece);
    const fast = {
      added_tokens: [
        { id: 0, content: '<pad>' },
        { id: 1, content: '</s>' },
        { id: 2, content: '<unk>' },
        { id: 60, content: '<extra_id_0>' },
      ],
      normalizer: null,
      model: { type: 'Unigram', unk_id: 2, vocab: pieces.map(({ text, score }) => [text, score]) },
    };
    const tokenizer = new T5Tokenizer({ 'tokenizer.json': json(fast) });
    expect(tokenizer.encode('a photo of a cat')).toEqual([5, 24, 7, 8, 6, 8, 12, 14, 5, 16]);
    expect(tokenizer.encode('a<extra_id_0>a</s>')).toEqual([5, 60, 5, 1]);
    expect(tokenizer.decode([5, 60, 5, 1])).toBe('a<extra_id_0>a');
  });

  it('names the file or token that is wrong', () => {
    expect(() => new T5Tokenizer({})).toThrow('needs spiece.model or tokenizer.json');
    expect(() => new T5Tokenizer({ 'tokenizer.json': json({ model: { type: 'BPE' } }) })).toThrow('holds a BPE model');
    expect(() => new T5Tokenizer({ 'tokenizer.json': new TextEncoder().encode('{') })).toThrow('tokenizer.json: ');
    expect(
      () => new T5Tokenizer({ 'spiece.model': spiece, 'tokenizer_config.json': json({ eos_token: '<end>' }) }),
    ).toThrow("eos_token '<end>' is not in the vocabulary");
  });
});
