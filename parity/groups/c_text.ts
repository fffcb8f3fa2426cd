import { join, resolve } from 'node:path';
import { z } from 'zod';
import { type NdArray, ndarray } from '../../src/array/index.js';
import { loadTokenizer, readJson } from '../../src/io/node/index.js';
import { type CLIPTextModelWithProjection, type ClipTextStates, modelClass } from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

type Encoder = CLIPTextModelWithProjection;

/** Token ids to states and the text's summary. */
async function textEncoder(reference: ReferenceCase): Promise<Outputs> {
  const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0)) as Encoder;
  model.loadStateDict(reference.weights);
  const encode = compile((ids: Tensor, { mask, positions }: { mask?: Tensor; positions?: Tensor }) =>
    named(model.forward(ids, { attentionMask: mask, positionIds: positions })),
  );
  const optional = {
    mask: reference.optionalInput('attention_mask'),
    positions: reference.optionalInput('position_ids'),
  };
  const given = Object.entries(optional).filter((entry): entry is [string, NdArray] => entry[1] !== undefined);
  const outputs = await encode(reference.input('input_ids'), Object.fromEntries(given));
  await encode.release();
  return outputs;
}

const named = ({ lastHiddenState, poolerOutput, hiddenStates, ...rest }: ClipTextStates & { textEmbeds?: Tensor }) => ({
  'out.last_hidden_state': lastHiddenState,
  'out.pooler_output': poolerOutput,
  ...Object.fromEntries(hiddenStates.map((state, i) => [`out.hidden_states.${i}`, state])),
  ...(rest.textEmbeds && { 'out.text_embeds': rest.textEmbeds }),
});

const golden = z.array(
  z.looseObject({
    text: z.string(),
    ids: z.array(z.number()),
    ids_ftfy: z.array(z.number()).optional(),
    ids_openai: z.array(z.number()).optional(),
    ids77: z.array(z.number()).optional(),
    mask77: z.array(z.number()).optional(),
    decoded_skip_special: z.string().optional(),
  }),
);

/** Strings to token ids and back, by the vocabulary that the case names. */
async function tokenizer(reference: ReferenceCase): Promise<Outputs> {
  const { vocab_files: place } = reference.read(z.looseObject({ vocab_files: z.string() }));
  const clip = await loadTokenizer(resolve(reference.directory, place.split(' ')[0]));
  const outputs: Record<string, NdArray> = {};
  const pair = (name: string, ours: Iterable<number | bigint>, stored: readonly number[]) => {
    outputs[name] = int64(ours);
    reference.expect(name, int64(stored));
  };
  for (const [i, entry] of (await readJson(join(reference.directory, 'golden.json'), golden)).entries()) {
    const { text, ids, ids_ftfy, ids_openai, ids77, mask77, decoded_skip_special: decoded } = entry;
    pair(`${i}.ids`, [clip.bosTokenId, ...clip.encode(text), clip.eosTokenId], ids_openai ?? ids_ftfy ?? ids);
    const { inputIds, attentionMask } = clip.encodeBatch([text], { maxLength: 77 });
    // Where ftfy mends the text, the padded row was recorded without it.
    if (!ids_ftfy && ids77) pair(`${i}.ids77`, inputIds.data, ids77);
    if (!ids_ftfy && mask77) pair(`${i}.mask77`, attentionMask.data, mask77);
    if (decoded !== undefined) pair(`${i}.decoded`, codePoints(clip.decode(ids)), codePoints(decoded));
  }
  return outputs;
}

const int64 = (values: Iterable<number | bigint>): NdArray => {
  const data = BigInt64Array.from(values, BigInt);
  return ndarray(data, [data.length], 'int64');
};
const codePoints = (text: string): number[] => Array.from(text, (c) => c.codePointAt(0)!);

export const adapters: Readonly<Record<string, Adapter>> = {
  CLIPTextModel: textEncoder,
  CLIPTextModelWithProjection: textEncoder,
  CLIPTokenizer: tokenizer,
};
