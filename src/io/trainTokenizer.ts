import { ClipTokenizer, letterOfByte, lettersOf, wordsOf } from './clipTokenizer.js';

export interface TrainTokenizerOptions {
  /** Most entries of the vocabulary, the 512 of single bytes and 2 special ones among them; default 4096. */
  readonly vocabularySize?: number;
  /** Tokens per text with the first and the last one; default 77. */
  readonly modelMaxLength?: number;
}

const [bos, eos] = ['<|startoftext|>', '<|endoftext|>'];

/**
 * Learns byte pairs (Sennrich et al. 2016) from texts: again and again the most frequent pair of neighbouring pieces
 * becomes a piece, until the vocabulary is full or no pair comes twice. Laid out as CLIP's vocabulary: bytes, bytes that
 * end a word, merges, special tokens.
 * @throws RangeError for a vocabulary too small for single bytes.
 */
export function trainTokenizer(texts: Iterable<string>, options: TrainTokenizerOptions = {}): ClipTokenizer {
  const { vocabularySize = 4096, modelMaxLength = 77 } = options;
  const single = [...letterOfByte, ...letterOfByte.map((letter) => `${letter}</w>`)];
  const room = vocabularySize - single.length - 2;
  if (!(room >= 0))
    throw new RangeError(`CLIP tokenizer: vocabularySize ${vocabularySize}, expected at least ${single.length + 2}`);
  const counts = new Map<string, number>();
  for (const text of texts) for (const word of wordsOf(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  const words = [...counts].map(([word, count]) => ({ pieces: lastMarked(lettersOf(word)), count }));

  const merges: string[] = [];
  while (merges.length < room) {
    const pairs = new Map<string, number>();
    for (const { pieces, count } of words)
      for (let i = 1; i < pieces.length; i++) {
        const pair = `${pieces[i - 1]} ${pieces[i]}`;
        pairs.set(pair, (pairs.get(pair) ?? 0) + count);
      }
    const best = [...pairs].reduce((most, entry) => (entry[1] > most[1] ? entry : most), ['', 1]);
    if (best[1] < 2) break;
    merges.push(best[0]);
    for (const word of words) word.pieces = joined(word.pieces, best[0]);
  }
  const tokens = [...single, ...merges.map((pair) => pair.replace(' ', '')), bos, eos];
  const special = { bos_token: bos, eos_token: eos, unk_token: eos, pad_token: eos };
  return new ClipTokenizer({
    'vocab.json': JSON.stringify(Object.fromEntries(tokens.map((token, id) => [token, id]))),
    'merges.txt': `${['#version: 0.2', ...merges].join('\n')}\n`,
    'tokenizer_config.json': `${JSON.stringify({ tokenizer_class: 'CLIPTokenizer', model_max_length: modelMaxLength, ...special }, null, 2)}\n`,
    'special_tokens_map.json': `${JSON.stringify(special, null, 2)}\n`,
  });
}

const lastMarked = (letters: readonly string[]): string[] => [...letters.slice(0, -1), `${letters.at(-1)}</w>`];

/** The pieces of a word with a pair joined wherever it stands. */
function joined(pieces: readonly string[], pair: string): string[] {
  const out: string[] = [];
  for (let i = 0; i < pieces.length; i++)
    out.push(`${pieces[i]} ${pieces[i + 1]}` === pair ? pieces[i] + pieces[++i] : pieces[i]);
  return out;
}
