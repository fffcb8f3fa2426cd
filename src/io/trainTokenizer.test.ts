import { expect, it } from 'vitest';
import { ClipTokenizer } from './clipTokenizer.js';
import { trainTokenizer } from './trainTokenizer.js';

const texts = ['red heart', 'red circle', 'Red Square!', 'a heart'];

it('learns words that come often, and spells the others', () => {
  const tokenizer = trainTokenizer(texts, { modelMaxLength: 8 });
  expect(tokenizer.tokenize('red heart')).toEqual(['red</w>', 'heart</w>']);
  expect(tokenizer.tokenize('reds')).not.toContain('red</w>');
  expect(tokenizer.decode(tokenizer.encode('blue heart, naïve'))).toBe('blue heart, naïve');
  expect(tokenizer.eosTokenId - tokenizer.bosTokenId).toBe(1);
  expect(tokenizer.encodeBatch(['']).inputIds.shape).toEqual([1, 8]);
});

it('writes files that open again, and keeps to its size', () => {
  const tokenizer = trainTokenizer(texts, { vocabularySize: 516 });
  expect(tokenizer.eosTokenId).toBe(515);
  const again = new ClipTokenizer(tokenizer.files);
  expect(again.encode(texts.join(' '))).toEqual(tokenizer.encode(texts.join(' ')));
  expect(() => trainTokenizer(texts, { vocabularySize: 500 })).toThrow('expected at least 514');
});
