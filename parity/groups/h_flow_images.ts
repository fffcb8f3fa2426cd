import { z } from 'zod';
import {
  bitsPerDim,
  checkerboardMask,
  checkPixels,
  dequantize,
  Glow,
  Logit,
  NICE,
  RealNVP,
  squeeze2x2,
  squeezeDiagonals,
  standardNormalLogProb,
  unsqueeze2x2,
  unsqueezeDiagonals,
} from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter } from '../adapter.js';
import type { ReferenceCase } from '../case.js';
import { lossOf, lossWeights, type Rename, shapedAs, withWeights } from './h_flows.js';

const nice: Adapter = async (reference) => {
  const config = z
    .object({
      n_features: z.number(),
      n_coupling_blocks: z.number().default(4),
      n_hidden_layers: z.number().default(5),
      n_hidden_features: z.number().default(1000),
    })
    .parse(reference.config);
  const options = {
    couplings: config.n_coupling_blocks,
    hiddenLayers: config.n_hidden_layers,
    hiddenFeatures: config.n_hidden_features,
  };
  const flow = new NICE(config.n_features, options, new Generator(0));
  const slopes = withWeights(flow, reference.weights, (name) => {
    const [, block, layer, rest] = /^net\.(\d+)\.net\.(\d+)\.(.*)$/.exec(name) ?? [];
    return { name: block === undefined ? name : `couplings.${block}.net.layers.${Number(layer) / 2}.${rest}` };
  });
  const run = compile((x: Tensor, weights: Tensor[]): Record<string, Tensor> => {
    const { z, logDet: each } = flow.forward(x);
    const logDet = shapedAs(reference, 'out.log_det', each);
    const loss = lossOf(reference, [z, logDet], weights);
    return {
      'out.z': z,
      'out.log_det': logDet,
      'out.inverse': flow.inverse(z).x,
      ...(loss && { 'out.loss': loss, ...slopes(loss) }),
    };
  });
  return run(reference.input('x'), lossWeights(reference));
};

/** Images in 0..1 through noise, logits and a flow, and the flow's latents back to logits. */
async function image(reference: ReferenceCase, flow: Glow | RealNVP, ours: Rename) {
  const slopes = withWeights(flow, reference.weights, ours);
  const images = reference.input('x');
  checkPixels(reference.name, images);
  const logit = new Logit();
  const run = compile((x: Tensor, noise: Tensor, weights: Tensor[]): Record<string, Tensor> => {
    const logits = logit.forward(dequantize(x, noise));
    const latent = flow.forward(logits.z);
    const logDet = logits.logDet.add(latent.logDet);
    const back = flow.inverse(latent.z);
    const loss = lossOf(reference, [latent.z, logDet], weights);
    const dims = x.size / x.shape[0];
    const bits = bitsPerDim(standardNormalLogProb(latent.z).add(logDet), dims);
    return {
      'out.z': latent.z,
      'out.sldj': logDet,
      'out.reverse': back.x,
      'out.reverse_sldj': back.logDet,
      'out.reverse_sigmoid': back.x.sigmoid(),
      'out.nll': bits.mul(dims * Math.LN2).mean(),
      ...(loss && { 'out.loss': loss, ...slopes(loss) }),
    };
  });
  return run(images, reference.input('dequant_noise'), lossWeights(reference));
}

const glow: Adapter = (reference) => {
  const { num_channels, num_levels, num_steps } = z
    .object({ num_channels: z.number(), num_levels: z.number(), num_steps: z.number() })
    .parse(reference.config);
  const options = { midChannels: num_channels, levels: num_levels, steps: num_steps, lu: false };
  return image(reference, new Glow(options, new Generator(0)), (name) => (name === 'bounds' ? undefined : { name }));
};

const realNvp: Adapter = (reference) => {
  const config = z
    .object({
      num_scales: z.number().default(2),
      in_channels: z.number().default(3),
      mid_channels: z.number().default(64),
      num_blocks: z.number().default(8),
    })
    .parse(reference.config);
  const options = {
    scales: config.num_scales,
    inChannels: config.in_channels,
    midChannels: config.mid_channels,
    blocks: config.num_blocks,
  };
  return image(reference, new RealNVP(options, new Generator(0)), (name) =>
    name === 'data_constraint' ? undefined : { name: name.replace('.conv.', '.') },
  );
};

const squeezes: Adapter = (reference) => {
  const run = compile((x: Tensor): Record<string, Tensor> => {
    const [, , h, w] = x.shape;
    return {
      'out.squeeze': squeeze2x2(x),
      'out.squeeze_alt': squeezeDiagonals(x),
      'out.unsqueeze': unsqueeze2x2(squeeze2x2(x)),
      'out.unsqueeze_alt': unsqueezeDiagonals(squeezeDiagonals(x)),
      'out.checkerboard': checkerboardMask(h, w),
      'out.checkerboard_reverse': checkerboardMask(h, w, true),
    };
  });
  return run(reference.input('x'));
};

export const adapters: Readonly<Record<string, Adapter>> = {
  NICE: nice,
  Glow: glow,
  RealNVP: realNvp,
  squeeze_2x2: squeezes,
};
