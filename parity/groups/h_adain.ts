import { z } from 'zod';
import type { NdArray } from '../../src/array/index.js';
import { AdaINNet } from '../../src/models/index.js';
import { coral } from '../../src/pipelines/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, gradients, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';

/** Our layer of each place in the source's Net. */
const encoderPlaces: Readonly<Record<string, string>> = {
  'enc_1.0': 'normalize',
  'enc_1.2': 'conv1_1',
  'enc_2.1': 'conv1_2',
  'enc_2.5': 'conv2_1',
  'enc_3.1': 'conv2_2',
  'enc_3.5': 'conv3_1',
  'enc_4.1': 'conv3_2',
  'enc_4.4': 'conv3_3',
  'enc_4.7': 'conv3_4',
  'enc_4.11': 'conv4_1',
};
const decoderPlaces: Readonly<Record<string, string>> = {
  'decoder.1': 'conv4_1',
  'decoder.5': 'conv3_4',
  'decoder.8': 'conv3_3',
  'decoder.11': 'conv3_2',
  'decoder.14': 'conv3_1',
  'decoder.18': 'conv2_2',
  'decoder.21': 'conv2_1',
  'decoder.25': 'conv1_2',
  'decoder.28': 'conv1_1',
};

function ourName(name: string): string {
  const [, layer, kind] = /^(.*)\.(weight|bias)$/.exec(name) ?? [];
  if (layer in encoderPlaces) return `encoder.${encoderPlaces[layer]}.${kind}`;
  if (layer in decoderPlaces) return `decoder.${decoderPlaces[layer]}.${kind}`;
  throw new Error(`AdaIN: no place for '${name}'`);
}

const description = z.object({
  call: z.object({ alpha: z.number().optional(), content_weight: z.number(), style_weight: z.number() }),
});

/** Features, targets, images and losses at every alpha that an output names; the loss and gradients at the call's. */
const net: Adapter = async (reference) => {
  const { call } = reference.read(description);
  const { weights } = reference;
  const widths = ['enc_1.2', 'enc_2.5', 'enc_3.5', 'enc_4.11'].map((layer) => weights.get(`${layer}.weight`)!.shape[0]);
  const model = new AdaINNet({ channels: widths as [number, number, number, number] }, new Generator(0));
  model.loadStateDict(new Map([...weights].map(([name, array]): [string, NdArray] => [ourName(name), array])));

  const names = [...reference.tensors.keys()];
  const alphas = new Set(names.flatMap((name) => /^out\.\w+_alpha(.+)$/.exec(name)?.[1] ?? []));
  const withLoss = names.some((name) => name === 'out.loss_total' || name.startsWith('grad.'));
  const run = compile((content: Tensor, style: Tensor) => {
    const outputs: Record<string, Tensor> = { 'out.content_feat': model.encoder.forward(content) };
    for (const [i, features] of model.encoder.features(style).entries()) outputs[`out.style_feat${i + 1}`] = features;
    for (const alpha of alphas) {
      const losses = model.losses(content, style, Number(alpha));
      outputs[`out.t_alpha${alpha}`] = model.target(content, style, Number(alpha));
      outputs[`out.g_t_alpha${alpha}`] = losses.images;
      outputs[`out.loss_c_alpha${alpha}`] = losses.content;
      outputs[`out.loss_s_alpha${alpha}`] = losses.style;
    }
    if (!withLoss) return outputs;
    const losses = model.losses(content, style, call.alpha ?? 1);
    const total = losses.content.mul(call.content_weight).add(losses.style.mul(call.style_weight));
    const parameters = model.namedParameters();
    const trained = [...weights.keys()].filter((name) => name.startsWith('decoder.'));
    const slopes = gradients(
      total,
      trained.map((name) => parameters.get(ourName(name))!),
    );
    for (const [i, name] of trained.entries()) outputs[`grad.${name}`] = slopes[i];
    return { ...outputs, 'out.loss_total': total };
  });
  const outputs: Outputs = await run(reference.input('content'), reference.input('style'));
  await run.release();
  return outputs;
};

export const adapters: Readonly<Record<string, Adapter>> = {
  Net: net,
  coral: (reference) => ({
    out: coral(reference.input('source') as NdArray<'float32'>, reference.input('target') as NdArray<'float32'>),
  }),
};
