import type { ClipTokenizer } from '../io/index.js';

/** Part of a prompt, and how much it counts. */
export interface WeightedText {
  readonly text: string;
  readonly weight: number;
}

const token = /\\[()[\]\\]|\\|\(|\[|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|\)|\]|:|[^\\()[\]:]+/g;

/**
 * The weights of a prompt in the syntax that spread from AUTOMATIC1111's web interface: `(word)` counts 1.1 times,
 * `(word:1.3)` 1.3 times, `[word]` 1/1.1 times; brackets within brackets multiply; `\(`, `\[` and `\\` are plain letters;
 * a bracket that is never closed reaches to the end; what no bracket was opened for is plain, too.
 * @returns the sections between BREAKs, each in parts of equal weight.
 */
export function parsePrompt(prompt: string): WeightedText[][] {
  const parts: { text: string; weight: number }[] = [];
  const round: number[] = [];
  const square: number[] = [];
  const multiply = (from: number, factor: number) => {
    for (const part of parts.slice(from)) part.weight *= factor;
  };
  for (const [found, weight] of prompt.matchAll(token)) {
    if (found === '(') round.push(parts.length);
    else if (found === '[') square.push(parts.length);
    else if (weight !== undefined && round.length > 0) multiply(round.pop()!, Number(weight));
    else if (found === ')' && round.length > 0) multiply(round.pop()!, 1.1);
    else if (found === ']' && square.length > 0) multiply(square.pop()!, 1 / 1.1);
    else parts.push({ text: /^\\./.test(found) ? found.slice(1) : found, weight: 1 });
  }
  for (const from of round) multiply(from, 1.1);
  for (const from of square) multiply(from, 1 / 1.1);

  const sections: { text: string; weight: number }[][] = [[]];
  for (const { text, weight } of parts)
    for (const [i, piece] of text.split(/\s*\bBREAK\b\s*/).entries()) {
      if (i > 0) sections.push([]);
      const section = sections.at(-1)!;
      const before = section.at(-1);
      if (before?.weight === weight) before.text += piece;
      else if (piece !== '') section.push({ text: piece, weight });
    }
  return sections;
}

/** As much of a prompt as a text encoder takes at once, without a first and a last token. */
export interface PromptChunk {
  readonly ids: readonly number[];
  /** One for each id. */
  readonly weights: readonly number[];
}

/** A phrase is moved to the next chunk as a whole when it began with at most so many tokens. */
const longestMoved = 20;

/**
 * A prompt of any length in chunks that a text encoder takes one by one. A chunk ends at BREAK, or when it is full:
 * then after its last comma, if that is near.
 * @param length ids in a chunk (75 for CLIP).
 * @returns at least one chunk.
 */
export function promptChunks(tokenizer: ClipTokenizer, prompt: string, length: number): PromptChunk[] {
  const [comma] = tokenizer.encode(',');
  return parsePrompt(prompt).flatMap((section) => {
    const all = section.flatMap(({ text, weight }) => tokenizer.encode(text).map((id) => ({ id, weight })));
    const chunks: PromptChunk[] = [];
    let from = 0;
    do {
      let end = Math.min(from + length, all.length);
      if (end < all.length) {
        const last = all.slice(from, end).findLastIndex(({ id }) => id === comma) + 1;
        if (last > 0 && length - last <= longestMoved) end = from + last;
      }
      const chunk = all.slice(from, end);
      chunks.push({ ids: chunk.map(({ id }) => id), weights: chunk.map(({ weight }) => weight) });
      from = end;
    } while (from < all.length);
    return chunks;
  });
}
