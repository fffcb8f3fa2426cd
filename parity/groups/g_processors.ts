import { Attention, type AttentionConfig, identityAttention, withPerturbations } from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, concat, type Tensor } from '../../src/tensor/index.js';
import type { Adapter } from '../adapter.js';
import { configOf } from './b_blocks.js';

/** diffusers' PAG processors: the last part of the batch, of `parts`, is perturbed. */
const perturbedLast =
  (parts: number): Adapter =>
  async (reference) => {
    const attention = new Attention(configOf<AttentionConfig>(reference.config), new Generator(0));
    attention.loadStateDict(reference.weights);
    const joint = reference.optionalInput('encoder_hidden_states');
    const forward = (image: Tensor, text?: Tensor): { image: Tensor; text?: Tensor } =>
      text ? attention.forwardJoint(image, text) : { image: attention.forward(image) };
    const run = compile((image: Tensor, texts: readonly Tensor[]) => {
      const last = image.shape[0] - image.shape[0] / parts;
      const range = (from: number, to?: number) => [image, ...texts].map((x) => x.slice(0, from, to));
      const [plainImage, plainText] = range(0, last);
      const [lastImage, lastText] = range(last);
      const plain = forward(plainImage, plainText);
      const perturbed = withPerturbations(new Map([[attention, { attend: identityAttention }]]), () =>
        forward(lastImage, lastText),
      );
      return {
        'out.hidden_states': concat([plain.image, perturbed.image]),
        ...(plain.text && perturbed.text && { 'out.encoder_hidden_states': concat([plain.text, perturbed.text]) }),
      };
    });
    const outputs = await run(reference.input('hidden_states'), joint ? [joint] : []);
    await run.release();
    return outputs;
  };

export const adapters: Readonly<Record<string, Adapter>> = {
  PAGIdentitySelfAttnProcessor2_0: perturbedLast(2),
  PAGCFGIdentitySelfAttnProcessor2_0: perturbedLast(3),
  PAGJointAttnProcessor2_0: perturbedLast(2),
  PAGCFGJointAttnProcessor2_0: perturbedLast(3),
};
