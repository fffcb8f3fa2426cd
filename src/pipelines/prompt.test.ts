import { describe, expect, it } from 'vitest';
import type { NdArray } from '../array/index.js';
import { ClipTokenizer } from '../io/index.js';
import { CLIPTextModel, CLIPTextModelWithProjection } from '../models/index.js';
import { Generator } from '../random/index.js';
import { parsePrompt, promptChunks } from './prompt.js';
import { ClipPrompts, Sd3Prompts, SdxlPrompts } from './promptEncoders.js';

const letters = [...'abcdefghijklmnopqrstuvwxyz,.()[]:0123456789\\'];
const tokens = [...letters, ...letters.map((letter) => `${letter}</w>`), '<|startoftext|>', '<|endoftext|>'];
const tokenizer = new ClipTokenizer({
  'vocab.json': JSON.stringify(Object.fromEntries(tokens.map((token, id) => [token, id]))),
  'merges.txt': '#version: 0.2\n',
  'tokenizer_config.json': '{"model_max_length": 8}',
});
const eos = tokens.length - 1;
const rounded = (prompt: string) =>
  parsePrompt(prompt).map((section) => section.map(({ text, weight }) => [text, Number(weight.toFixed(4))]));

describe('parsePrompt', () => {
  it.each([
    ['a cat', [['a cat', 1]]],
    [
      'a (cat)',
      [
        ['a ', 1],
        ['cat', 1.1],
      ],
    ],
    [
      'a (cat:1.3) [b]',
      [
        ['a ', 1],
        ['cat', 1.3],
        [' ', 1],
        ['b', 0.9091],
      ],
    ],
    [
      '((a (b:0.5) c))',
      [
        ['a ', 1.21],
        ['b', 0.605],
        [' c', 1.21],
      ],
    ],
    ['(a: b : -.5 )', [['a: b ', -0.5]]],
    ['a \\(b\\) \\[c\\] \\\\ d\\e', [['a (b) [c] \\ d\\e', 1]]],
    [
      'a (b [c',
      [
        ['a ', 1],
        ['b ', 1.1],
        ['c', 1],
      ],
    ],
    ['a) b] 16:9 :1.5)', [['a) b] 16:9 :1.5)', 1]]],
    ['', []],
  ])('%s', (prompt, parts) => {
    expect(rounded(prompt)).toEqual([parts]);
  });

  it('parts at BREAK, within brackets, too', () => {
    expect(rounded('a BREAK b BREAKFAST (c BREAK d:2)')).toEqual([
      [['a', 1]],
      [
        ['b BREAKFAST ', 1],
        ['c', 2],
      ],
      [['d', 2]],
    ]);
  });
});

describe('promptChunks', () => {
  const texts = (prompt: string, length = 6) =>
    promptChunks(tokenizer, prompt, length).map(({ ids }) => ids.map((id) => tokens[id].replace('</w>', ' ')).join(''));

  it('fills chunks, and keeps phrases together', () => {
    expect(texts('a b c d e f g h')).toEqual(['a b c d e f ', 'g h ']);
    expect(texts('a b, c d e f g')).toEqual(['a b , ', 'c d e f g ']);
    expect(texts('a b c d e f')).toEqual(['a b c d e f ']);
    expect(texts(`a, ${'b '.repeat(25)}`, 24)[0]).toBe(`a , ${'b '.repeat(22)}`);
    expect(texts('')).toEqual(['']);
    expect(texts('a BREAK b')).toEqual(['a ', 'b ']);
  });

  it('gives each id its weight', () => {
    const [{ ids, weights }] = promptChunks(tokenizer, 'ab (cd:1.5) e', 10);
    expect(ids).toHaveLength(5);
    expect(weights).toEqual([1, 1, 1.5, 1.5, 1]);
  });
});

describe('prompt encoders', () => {
  const small = { hiddenSize: 8, intermediateSize: 12, numHiddenLayers: 2, numAttentionHeads: 2, projectionDim: 4 };
  const config = { ...small, vocabSize: tokens.length, maxPositionEmbeddings: 8, eosTokenId: eos };
  const grown = <M extends CLIPTextModel>(model: M): M => {
    const rng = new Generator(5);
    for (const p of model.parameters()) p.set(rng.normal(p.shape, 0, 0.3));
    return model;
  };
  const tower = { tokenizer, model: grown(new CLIPTextModel(config, new Generator(1))) };
  const second = { tokenizer, model: grown(new CLIPTextModelWithProjection(config, new Generator(1))) };
  const size = [64, 64] as const;
  const prompts = new ClipPrompts(tower);
  const encode = async (texts: string[], more: object = {}) =>
    (await prompts.encode(texts, { size, ...more })).encoderHiddenStates as NdArray<'float32'>;

  it('say the same of plain prompts in either syntax', async () => {
    expect(await encode(['a cat', ''])).toEqual(await encode(['a cat', ''], { promptSyntax: 'plain' }));
    const brackets = await encode(['(ab:1.5)'], { promptSyntax: 'plain' });
    expect(brackets.shape).toEqual([1, 8, 8]);
    expect(brackets.data).toEqual((await encode(['\\(ab:1.5\\)'])).data.slice(0, 64));
  });

  it('go from the empty prompt past the plain one by weight', async () => {
    const [none, one, two, zero] = await Promise.all(
      ['', 'ab c', 'ab (c:2)', '(ab c:0)'].map(async (text) => [...(await encode([text])).data]),
    );
    const at = (i: number, weight: number) => none[i] + weight * (one[i] - none[i]);
    for (let i = 0; i < 64; i++) {
      const inside = i >= 8 && i < 32;
      expect(two[i]).toBeCloseTo(at(i, i >= 24 && i < 32 ? 2 : 1), 5);
      expect(zero[i]).toBeCloseTo(at(i, inside ? 0 : 1), 5);
    }
  });

  it('set the chunks of long prompts side by side, shorter ones filled up', async () => {
    const { shape, data } = await encode(['a b c d e f g h', 'a']);
    expect(shape).toEqual([2, 16, 8]);
    expect([...data.slice(0, 64)]).toEqual([...(await encode(['a b c d e f'])).data].map((v) => expect.closeTo(v, 5)));
    expect([...data.slice(192)]).toEqual([...(await encode([''])).data].map((v) => expect.closeTo(v, 5)));
  });

  it('leave out layers', async () => {
    const skipped = await encode(['a'], { clipSkip: 1 });
    expect(skipped).not.toEqual(await encode(['a']));
    await expect(encode(['a'], { clipSkip: 3 })).rejects.toThrow('clipSkip 3: expected a whole number from 0 to 2');
  });

  it("sum up a prompt's first chunk", async () => {
    const xl = new SdxlPrompts([tower, second]);
    const long = await xl.encode(['a b c d e f g (h:1.2)', ''], { size });
    expect([long.encoderHiddenStates.shape, long.textEmbeds.shape]).toEqual([
      [2, 16, 16],
      [2, 4],
    ]);
    const first = await xl.encode(['a b c d e f'], { size });
    expect([...long.textEmbeds.data.slice(0, 4)]).toEqual(
      [...first.textEmbeds.data].map((v) => expect.closeTo(Number(v), 5)),
    );
    const three = await new Sd3Prompts([second, second], 20, 4).encode(['a b c d e f g'], { size });
    expect([three.encoderHiddenStates.shape, three.pooledProjections.shape]).toEqual([
      [1, 20, 20],
      [1, 8],
    ]);
  });
});
