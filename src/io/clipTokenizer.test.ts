import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ClipTokenizer, type TokenizerFiles } from './clipTokenizer.js';
import { loadTokenizer, saveTokenizer } from './node/index.js';

const merges = ['c a', 'ca t</w>', 'Ã ©</w>', 'd o', 'do g', 'dog s</w>'];
const letters = [...Array(94).keys()].map((i) => String.fromCharCode(33 + i)).concat('Ã', '©', 'ð');
const pieces = [...letters, ...letters.map((c) => `${c}</w>`), ...merges.map((pair) => pair.replace(' ', ''))];
const tokens = [...pieces, '<|startoftext|>', '<|endoftext|>'];
const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
const [bos, eos] = [tokens.length - 2, tokens.length - 1];
const files: TokenizerFiles = {
  'vocab.json': JSON.stringify(vocab),
  'merges.txt': `#version: 0.2\n${merges.join('\n')}\n`,
};
const changed = (settings: object) =>
  new ClipTokenizer({ ...files, 'tokenizer_config.json': JSON.stringify({ model_max_length: 6, ...settings }) });

describe('ClipTokenizer', () => {
  const clip = changed({});

  it('joins letters in the order the pairs were learnt', () => {
    expect(clip.tokenize('Cat, DOGS  dog')).toEqual(['cat</w>', ',</w>', 'dogs</w>', 'do', 'g</w>']);
    expect(clip.tokenize("caté it's 4k!!")).toEqual(
      ['ca', 't', 'é</w>', 'i', 't</w>', "'", 's</w>', '4</w>', 'k</w>', '!', '!</w>'].map((s) => s.replace('é', 'Ã©')),
    );
    expect(clip.tokenize(' \n ')).toEqual([]);
  });

  it('cleans text as openai/CLIP does', () => {
    expect(clip.tokenize('&lt;ＣＡＴ&amp;gt;')).toEqual(['<</w>', 'cat</w>', '></w>']);
    expect(clip.tokenize('<|startoftext|>cat<|ENDOFTEXT|>')).toEqual(['<|startoftext|>', 'cat</w>', '<|endoftext|>']);
  });

  it('pads, and cuts but keeps the last token', () => {
    const { inputIds, attentionMask } = clip.encodeBatch(['cat', 'cat cat cat cat cat cat']);
    const cat = vocab['cat</w>'];
    expect(inputIds.shape).toEqual([2, 6]);
    expect(Array.from(inputIds.data, Number)).toEqual([bos, cat, eos, eos, eos, eos, bos, cat, cat, cat, cat, eos]);
    expect(Array.from(attentionMask.data, Number)).toEqual([1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    expect(clip.encodeBatch(['cat', ''], { padding: 'longest' }).inputIds.shape).toEqual([2, 3]);
    expect(() => clip.encodeBatch(['cat'], { maxLength: 1 })).toThrow('maxLength 1, expected at least 2');
    expect(() => changed({ model_max_length: 1e30 }).encodeBatch([''])).toThrow('pass maxLength');
  });

  it('takes special tokens as strings and records, the map before the config', () => {
    expect(changed({ pad_token: { content: '!' } }).padTokenId).toBe(0);
    const both = { 'special_tokens_map.json': '{"pad_token": "!"}', 'tokenizer_config.json': '{"pad_token": "#"}' };
    expect(new ClipTokenizer({ ...files, ...both }).padTokenId).toBe(0);
    expect(() => changed({ pad_token: '<pad>' })).toThrow("pad_token '<pad>' is not in the vocabulary");
  });

  it('keeps added tokens whole', () => {
    const learned = changed({ added_tokens_decoder: { 999: { content: '<cat-toy>' }, [eos]: '<|endoftext|>' } });
    expect(learned.encode('Cat <cat-toy> cat')).toEqual([vocab['cat</w>'], 999, vocab['cat</w>']]);
  });

  it('decodes', () => {
    expect(clip.decode([bos, ...clip.encode("Caté, it's dogs!"), eos, eos])).toBe("caté, it's dogs!");
    expect(() => clip.decode([5000])).toThrow('token 5000 is not in the vocabulary');
  });

  it('reads a tokenizer.json alone', () => {
    const model = { type: 'BPE', vocab, merges: merges.map((pair) => pair.split(' ')) };
    const whole = new ClipTokenizer({ 'tokenizer.json': JSON.stringify({ model, added_tokens: [] }) });
    expect(whole.tokenize('cats dogs')).toEqual(['ca', 't', 's</w>', 'dogs</w>']);
    expect(whole.modelMaxLength).toBe(77);
  });

  it('names the file at fault', async () => {
    expect(() => new ClipTokenizer({ ...files, 'vocab.json': '{' })).toThrow('vocab.json is not valid JSON');
    expect(() => new ClipTokenizer({ 'merges.txt': '' })).toThrow('needs vocab.json and merges.txt');
    await expect(loadTokenizer('/nowhere')).rejects.toThrow(/cannot read \/nowhere: .*needs vocab.json/);
  });

  it('goes to a folder and back', async () => {
    const root = await mkdtemp(join(tmpdir(), 'noisewright-'));
    await saveTokenizer(join(root, 'tokenizer'), clip);
    expect(await readdir(join(root, 'tokenizer'))).toHaveLength(3);
    expect((await loadTokenizer(join(root, 'tokenizer'))).encode('cat')).toEqual(clip.encode('cat'));
    await rm(root, { recursive: true });
  });
});
