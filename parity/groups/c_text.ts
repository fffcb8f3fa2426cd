import type { NdArray } from '../../src/array/index.js';
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

export const adapters: Readonly<Record<string, Adapter>> = {
  CLIPTextModel: textEncoder,
  CLIPTextModelWithProjection: textEncoder,
};
