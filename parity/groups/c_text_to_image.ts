import type { NdArray } from '../../src/array/index.js';
import {
  modelClass,
  type PixArtTransformer2D,
  type SD3Transformer2D,
  type StoredModel,
} from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';
import { timesteps } from './c_models.js';

type Inputs = Readonly<Record<string, Tensor>>;

/** Latents, times and text to predictions. */
const transformer =
  <M extends StoredModel>(forward: (model: M, inputs: Inputs, reference: ReferenceCase) => Tensor): Adapter =>
  async (reference): Promise<Outputs> => {
    const model = modelClass(reference.kind).fromJson(reference.config, new Generator(0)) as M;
    model.loadStateDict(reference.weights);
    const predict = compile((inputs: Inputs) => forward(model, inputs, reference));
    const images = reference.input('hidden_states');
    const stored = reference.inputNames().map((name): [string, NdArray] => [name, reference.input(name)]);
    const prediction = await predict({
      ...Object.fromEntries(stored),
      timestep: timesteps(reference, images.shape[0]),
    });
    await predict.release();
    return { 'out.sample': prediction };
  };

/** The tensors of a list argument: `block_controlnet_hidden_states.0`, `.1` ... */
const listed = (inputs: Inputs, name: string): Tensor[] =>
  Object.keys(inputs)
    .filter((key) => key.startsWith(`${name}.`))
    .sort((a, b) => Number(a.slice(name.length + 1)) - Number(b.slice(name.length + 1)))
    .map((key) => inputs[key]);

const sd3 = transformer<SD3Transformer2D>((model, inputs, { description }) =>
  model.forward(inputs.hidden_states, inputs.timestep, {
    encoderHiddenStates: inputs.encoder_hidden_states,
    pooledProjections: inputs.pooled_projections,
    blockControlnetHiddenStates: listed(inputs, 'block_controlnet_hidden_states'),
    skipLayers: (description.scalar_inputs as { skip_layers?: number[] } | undefined)?.skip_layers,
  }),
);

const pixart = transformer<PixArtTransformer2D>((model, inputs) => {
  const added = (name: string) => inputs[name] ?? inputs[`added_cond_kwargs.${name}`];
  const [resolution, aspectRatio] = [added('resolution'), added('aspect_ratio')];
  return model.forward(inputs.hidden_states, inputs.timestep, {
    encoderHiddenStates: inputs.encoder_hidden_states,
    encoderAttentionMask: inputs.encoder_attention_mask,
    attentionMask: inputs.attention_mask,
    resolution,
    aspectRatio,
  });
});

export const adapters: Readonly<Record<string, Adapter>> = {
  SD3Transformer2DModel: sd3,
  PixArtTransformer2DModel: pixart,
};
