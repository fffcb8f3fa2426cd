import { z } from 'zod';
import { type NdArray, ndarray } from '../../src/array/index.js';
import { cfg, guidePrediction } from '../../src/guidance/index.js';
import { DiT } from '../../src/models/index.js';
import { CombinedTimestepLabelEmbeddings, FeedForward, timestepEmbedding } from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, concat, gradients, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

/** The arguments of the paper's repository. */
const paperConfig = z.object({
  input_size: z.number(),
  patch_size: z.number(),
  in_channels: z.number(),
  hidden_size: z.number(),
  depth: z.number(),
  num_heads: z.number(),
  mlp_ratio: z.number(),
  class_dropout_prob: z.number(),
  num_classes: z.number(),
  learn_sigma: z.boolean(),
});

/** diffusers' layout has frequencies that end at exactly 1/10000, the paper's code begins the next octave there. */
class PaperEmbeddings extends CombinedTimestepLabelEmbeddings {
  override forward(timestep: Tensor, classLabels: Tensor): Tensor {
    const sinusoids = timestepEmbedding(timestep, 256, { flipSinToCos: true, downscaleFreqShift: 0 });
    return this.timestepEmbedder.forward(sinusoids).add(this.classEmbedder.forward(classLabels));
  }
}

/** Our DiT with the two things that its configuration cannot say: those frequencies, and the width of the MLP. */
function paperDiT({ config, weights }: ReferenceCase): DiT {
  const paper = paperConfig.parse(config);
  const { hidden_size: dim, in_channels: inChannels, num_classes: classes } = paper;
  const rng = new Generator(0);
  const model = new DiT(
    {
      sampleSize: paper.input_size,
      patchSize: paper.patch_size,
      inChannels,
      outChannels: paper.learn_sigma ? 2 * inChannels : inChannels,
      numAttentionHeads: paper.num_heads,
      attentionHeadDim: dim / paper.num_heads,
      numLayers: paper.depth,
      numEmbedsAdaNorm: classes,
      normEps: 1e-6,
    },
    rng,
  );
  const innerDim = Math.floor(dim * paper.mlp_ratio);
  for (const block of model.transformerBlocks) {
    Object.assign(block.norm1, { emb: new PaperEmbeddings(classes, dim, paper.class_dropout_prob, rng) });
    Object.assign(block, { ff: new FeedForward({ dim, innerDim, activationFn: 'gelu-approximate' }, rng) });
  }
  const state = new Map<string, NdArray>();
  for (const [name, array] of weights) {
    const { names, split } = ourNames(name, paper.depth);
    const size = array.data.length / names.length;
    for (const [i, ours] of names.entries())
      state.set(
        ours,
        split
          ? ndarray((array.data as Float32Array<ArrayBuffer>).slice(i * size, (i + 1) * size), [
              array.shape[0] / 3,
              ...array.shape.slice(1),
            ])
          : array,
      );
  }
  model.loadStateDict(state);
  return model;
}

const renamed: readonly (readonly [RegExp, string])[] = [
  [/^x_embedder\./, 'pos_embed.'],
  [/^t_embedder\.mlp\.0\./, 'norm1.emb.timestep_embedder.linear_1.'],
  [/^t_embedder\.mlp\.2\./, 'norm1.emb.timestep_embedder.linear_2.'],
  [/^y_embedder\./, 'norm1.emb.class_embedder.'],
  [/^blocks\./, 'transformer_blocks.'],
  [/\.attn\.proj\./, '.attn1.to_out.0.'],
  [/\.mlp\.fc1\./, '.ff.net.0.proj.'],
  [/\.mlp\.fc2\./, '.ff.net.2.'],
  [/^final_layer\.adaLN_modulation\.1\./, 'proj_out_1.'],
  [/^final_layer\.linear\./, 'proj_out_2.'],
  [/\.adaLN_modulation\.1\./, '.norm1.linear.'],
];

/** Ours for one of the paper's arrays: each block has a copy of the embedders, and qkv is split in three. */
function ourNames(name: string, depth: number): { names: string[]; split: boolean } {
  if (name === 'pos_embed') return { names: [], split: false }; // not stored by ours
  const ours = renamed.reduce((path, [from, to]) => path.replace(from, to), name);
  if (ours.startsWith('norm1.'))
    return { names: Array.from({ length: depth }, (_, i) => `transformer_blocks.${i}.${ours}`), split: false };
  if (!ours.includes('.attn.qkv.')) return { names: [ours], split: false };
  return { names: ['q', 'k', 'v'].map((part) => ours.replace('.attn.qkv.', `.attn1.to_${part}.`)), split: true };
}

async function dit(reference: ReferenceCase): Promise<Outputs> {
  const model = paperDiT(reference);
  const channels = model.inChannels;
  const weighted = reference.tensors.has('loss_weight.0');
  const run = compile((x: Tensor, t: Tensor, y: Tensor, weight: readonly Tensor[]) => {
    const out = model.forward(x, t, y);
    const outputs: Record<string, Tensor> = { out, 'out.eps': out.slice(1, 0, channels) };
    if (model.outChannels > channels) outputs['out.var'] = out.slice(1, channels);
    if (weight.length === 0) return outputs;
    const loss = out.mul(weight[0]).sum();
    const parameters = model.namedParameters();
    const [dx, ...grads] = gradients(loss, [x, ...parameters.values()]);
    const gradientOf = new Map([...parameters.keys()].map((name, i) => [name, grads[i]]));
    for (const name of reference.weights.keys()) {
      const { names, split } = ourNames(name, model.config.numLayers);
      const parts = names.map((ours) => gradientOf.get(ours)!);
      if (parts.length > 0) outputs[`grad.${name}`] = split ? concat(parts) : parts.reduce((a, b) => a.add(b));
    }
    return { ...outputs, 'out.loss': loss, 'grad_in.x': dx };
  });
  const weight = weighted ? [reference.given('loss_weight.0')] : [];
  const outputs = await run(reference.input('x'), reference.input('t'), reference.input('y'), weight);
  await run.release();
  return outputs;
}

/** The paper's guidance: the first half of the batch with its labels and with those of the second, 3 channels guided. */
async function ditWithGuidance(reference: ReferenceCase): Promise<Outputs> {
  const model = paperDiT(reference);
  const { call } = reference.read(z.object({ call: z.object({ cfg_scale: z.number() }) }));
  const guider = cfg(call.cfg_scale, { channels: 3 });
  const numbers = guider.inputs({ index: 0, total: 1, timestep: 0 });
  const run = compile((x: Tensor, t: Tensor, y: Tensor, inputs: Tensor) => {
    const half = x.shape[0] / 2;
    const images = x.slice(0, 0, half);
    const predict = (from: number) =>
      model.forward(images, t.slice(0, from, from + half), y.slice(0, from, from + half));
    const [positive, negative] = [predict(0), predict(half)];
    const predictions = new Map([
      ['positive', positive],
      ['negative', negative],
    ]);
    const { prediction } = guidePrediction(guider, predictions, inputs, [], model.inChannels);
    return concat([prediction, concat([prediction.slice(1, 0, 3), negative.slice(1, 3)], 1)]);
  });
  const out = await run(reference.input('x'), reference.input('t'), reference.input('y'), ndarray([...numbers]));
  await run.release();
  return { out };
}

export const adapters: Readonly<Record<string, Adapter>> = { DiT: dit, 'DiT.forward_with_cfg': ditWithGuidance };
