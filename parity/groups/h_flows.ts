import { z } from 'zod';
import { type NdArray, ndarray } from '../../src/array/index.js';
import {
  ActNorm,
  AffineCoupling,
  type AffineCouplingOptions,
  DiagonalNormal,
  type Flow,
  FlowModel,
  FlowSequence,
  glowStep,
  Inverted,
  Invertible1x1Conv,
  initializingActNorm,
  LuInvertible1x1Conv,
  MaskedAffineCoupling,
  MaskedAutoregressiveFlow,
  MLP,
  PlanarFlow,
  RadialFlow,
  Shuffle,
  SwapHalves,
  squeeze2x2,
  unsqueeze2x2,
} from '../../src/models/index.js';
import type { Module } from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, gradients, relu, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

/** Our name of one of the source's weights; the source's value times `sign` is ours. */
export interface Renamed {
  readonly name: string;
  readonly sign?: -1;
}
/** Undefined for what we do not keep. */
export type Rename = (name: string) => Renamed | undefined;

/** Gives a module the source's weights. @returns their gradients, under the source's names. */
export function withWeights(module: Module, weights: ReferenceCase['weights'], ours: Rename) {
  const variables = module.namedVariables();
  const state = new Map(module.stateDict());
  const named: [string, Renamed][] = [];
  for (const [source, array] of weights) {
    const renamed = ours(source);
    if (!renamed) continue;
    const own = variables.get(renamed.name);
    if (!own) throw new Error(`no weight '${renamed.name}' for the source's '${source}'`);
    const data = renamed.sign ? (array.data as Float32Array).map((x) => -x) : array.data;
    state.set(renamed.name, { ...array, data, shape: own.shape } as NdArray);
    if (own.trainable) named.push([source, renamed]);
  }
  module.loadStateDict(state);
  return (loss: Tensor): Record<string, Tensor> => {
    const slopes = gradients(
      loss,
      named.map(([, { name }]) => variables.get(name)!),
    );
    return Object.fromEntries(
      named.map(([source, { sign }], i) => {
        const slope = slopes[i].reshape(weights.get(source)!.shape);
        return [`grad.${source}`, sign ? slope.neg() : slope];
      }),
    );
  };
}

/** Sum of the outputs times their stored weights, when the case asks for a loss. */
export function lossOf(reference: ReferenceCase, outputs: readonly Tensor[], weights: readonly Tensor[]) {
  if (weights.length === 0) return undefined;
  if (weights.length > outputs.length) throw new Error(`${reference.name}: ${weights.length} loss weights`);
  return weights.map((weight, i) => outputs[i].mul(weight).sum()).reduce((a, b) => a.add(b));
}

export const lossWeights = (reference: ReferenceCase): NdArray[] =>
  [...reference.tensors.keys()]
    .filter((name) => name.startsWith('loss_weight.'))
    .sort()
    .map((name) => reference.given(name));

/** Sources give one log-determinant where all samples share it. */
export const shapedAs = (reference: ReferenceCase, name: string, logDet: Tensor): Tensor =>
  reference.tensors.get(name)?.shape.length === 0 ? logDet.slice(0, 0, 1).reshape([]) : logDet;

type Config = Readonly<Record<string, unknown>>;
interface Adapted {
  readonly flow: Flow & Module;
  readonly ours: Rename;
}

const plain: Rename = (name) => ({ name });
const rng = () => new Generator(0);

/** actnorm's s and t go from latents to data: ours, the other way, are their negatives. */
const actNormName = (name: string): Renamed | undefined =>
  ({ s: { name: 'logs', sign: -1 } as const, t: { name: 'bias', sign: -1 } as const })[name];

const mixingName = (name: string): Renamed | undefined =>
  name === 'eye' ? undefined : { name: name === 'W' ? 'weight' : name.toLowerCase() };

const within = (prefix: string, renamed: Renamed | undefined): Renamed | undefined =>
  renamed && { ...renamed, name: `${prefix}.${renamed.name}` };

/** Our name within a network, whose source counts its rectifiers (and norms) as layers. */
const netName = (name: string, each = 2): Renamed | undefined => {
  const [, index, rest] = /^net\.(\d+)\.(.*)$/.exec(name) ?? [];
  const norm = /^actNorm\.(.*)$/.exec(rest)?.[1];
  const layer = Math.floor(Number(index) / each);
  return norm ? within(`norms.${layer}`, actNormName(norm)) : { name: `layers.${layer}.${rest}` };
};

const couplingName = (name: string, each?: number): Renamed | undefined =>
  within('net', netName(name.replace('flows.1.param_map.', ''), each));

const mlpConfig = z.object({ layers: z.array(z.number()), leaky: z.number().default(0) });
const couplingConfig = z.object({
  scale: z.boolean().default(true),
  scale_map: z.enum(['exp', 'sigmoid', 'sigmoid_inv']).optional(),
  split_mode: z.enum(['channel', 'channel_inv', 'checkerboard', 'checkerboard_inv']).default('channel'),
});

function couplingOptions(config: Config): AffineCouplingOptions {
  const { scale, scale_map: scaleMap, split_mode: split } = couplingConfig.parse(config);
  return { scale, scaleMap, split };
}

/** Each of the source's layers; its forward goes from latents to data, and so does our inverse. */
const layers: Readonly<Record<string, (config: Config) => Adapted>> = {
  Planar(config) {
    const { shape, act } = z
      .object({ shape: z.array(z.number()), act: z.enum(['tanh', 'leaky_relu']).default('tanh') })
      .parse(config);
    return { flow: new PlanarFlow(shape, { activation: act }, rng()), ours: plain };
  },
  Radial(config) {
    const { shape } = z.object({ shape: z.array(z.number()) }).parse(config);
    const ours: Rename = (name) => (name === 'd' ? undefined : { name: name === 'z_0' ? 'center' : name });
    return { flow: new RadialFlow(shape, rng()), ours };
  },
  ActNorm(config) {
    const { shape } = z.object({ shape: z.array(z.number()) }).parse(config);
    return { flow: new ActNorm(shape, { unbiased: true }), ours: actNormName };
  },
  Invertible1x1Conv(config) {
    const { num_channels: channels, use_lu: lu } = z
      .object({ num_channels: z.number(), use_lu: z.boolean().default(false) })
      .parse(config);
    const flow = lu ? new LuInvertible1x1Conv(channels, rng()) : new Invertible1x1Conv(channels, rng());
    return { flow, ours: mixingName };
  },
  AffineCouplingBlock(config) {
    const { param_map: map } = z.object({ param_map: mlpConfig }).parse(config);
    const flow = new AffineCoupling(new MLP(map.layers, { leaky: map.leaky }, rng()), couplingOptions(config));
    return { flow, ours: couplingName };
  },
  MaskedAffineFlow(config) {
    const sizes = z.array(z.number()).nullish();
    const { b, t, s } = z.object({ b: z.array(z.number()), t: sizes, s: sizes }).parse(config);
    const net = (layers: number[] | null | undefined) => (layers ? new MLP(layers, {}, rng()) : undefined);
    const ours: Rename = (name) => (name === 'b' ? { name } : within(name[0], netName(name.slice(2))));
    return { flow: new MaskedAffineCoupling(b, net(t), net(s)), ours };
  },
  GlowBlock(config) {
    const parsed = z
      .object({
        channels: z.number(),
        hidden_channels: z.number(),
        scale_map: z.enum(['exp', 'sigmoid', 'sigmoid_inv']).default('sigmoid'),
        leaky: z.number().default(0),
        use_lu: z.boolean().default(true),
        net_actnorm: z.boolean().default(false),
      })
      .parse(config);
    const { channels, hidden_channels: hiddenChannels, leaky, use_lu: lu, net_actnorm: netActNorm } = parsed;
    const options = { ...couplingOptions(config), scaleMap: parsed.scale_map, hiddenChannels, leaky, lu, netActNorm };
    const flow = glowStep(channels, options, rng());
    const last = flow.flows.length - 1;
    const ours: Rename = (name) => {
      const [, index, rest] = /^flows\.(\d)\.(.*)$/.exec(name) ?? [];
      const at = last - Number(index);
      if (at === last) return within(`flows.${at}`, couplingName(rest, netActNorm ? 3 : 2));
      return within(`flows.${at}`, at === 0 ? actNormName(rest) : mixingName(rest));
    };
    return { flow, ours };
  },
  MaskedAffineAutoregressive(config) {
    const parsed = z
      .object({
        features: z.number(),
        hidden_features: z.number(),
        num_blocks: z.number().default(2),
        use_residual_blocks: z.boolean().default(true),
        random_mask: z.boolean().default(false),
        use_batch_norm: z.boolean().default(false),
        activation: z.enum(['relu', 'tanh']).default('relu'),
      })
      .parse(config);
    const options = {
      hiddenFeatures: parsed.hidden_features,
      blocks: parsed.num_blocks,
      residual: parsed.use_residual_blocks,
      randomMask: parsed.random_mask,
      batchNorm: parsed.use_batch_norm,
      activation: parsed.activation === 'tanh' ? (x: Tensor) => x.tanh() : relu,
    };
    // The source's one-pass direction is from latents to data: what the paper calls the inverse flow.
    const flow = new Inverted(new MaskedAutoregressiveFlow(parsed.features, options, rng()));
    const ours: Rename = (name) =>
      name.endsWith('degrees')
        ? undefined
        : within('flow', {
            name: name
              .replace('autoregressive_net.', '')
              .replace(/\.linear\./, '.linear_layers.0.')
              .replace(/\.batch_norm\./, '.batch_norm_layers.0.'),
          });
    return { flow, ours };
  },
};

const layer =
  (kind: string): Adapter =>
  async (reference) => {
    const { flow, ours } = layers[kind](reference.config);
    const slopes = withWeights(flow, reference.weights, ours);
    const run = compile((z: Tensor, weights: Tensor[]): Record<string, Tensor> => {
      const { x, logDet: each } = flow.inverse(z);
      const logDet = shapedAs(reference, 'out.log_det', each);
      const back = flow.forward(x);
      const loss = lossOf(reference, [x, logDet], weights);
      return {
        'out.z': x,
        'out.log_det': logDet,
        'out.inverse_of_out': back.z,
        'out.inverse_log_det': shapedAs(reference, 'out.inverse_log_det', back.logDet),
        ...(loss && { 'out.loss': loss, ...slopes(loss) }),
      };
    });
    return run(reference.input('z'), lossWeights(reference));
  };

/** Ours are bias and log scale from data to latents. */
const firstBatch = async (reference: ReferenceCase): Promise<Outputs> => {
  const latents = reference.optionalInput('z');
  const batch = latents ?? reference.input('x');
  const norm = new ActNorm([batch.shape[1], ...batch.shape.slice(2).map(() => 1)], { unbiased: latents !== undefined });
  const run = compile((x: Tensor) =>
    initializingActNorm(() => {
      const { x: out, logDet } = latents ? norm.inverse(x) : { ...norm.forward(x), x: norm.forward(x).z };
      return { out, logDet: shapedAs(reference, 'out.log_det', logDet) };
    }),
  );
  const { out, logDet } = await run(batch);
  const [bias, logs] = [await norm.bias.read(), await norm.logs.read()];
  const negative = ({ data, shape }: NdArray) =>
    ndarray(
      (data as Float32Array).map((x) => -x),
      shape,
    );
  return latents
    ? { 'out.z': out, 'out.log_det': logDet, 'out.s': negative(logs), 'out.t': negative(bias) }
    : { 'out.y': out, 'out.ldj': logDet, 'out.bias': bias, 'out.logs': logs };
};

/** Couplings with a permutation after each, under a trained normal distribution. */
const model: Adapter = async (reference) => {
  const { D, blocks, net, permute } = z
    .object({ D: z.number(), blocks: z.number(), net: z.array(z.number()), permute: z.enum(['swap', 'shuffle']) })
    .parse(reference.config);
  const fromLatents = Array.from({ length: blocks }, () => [
    new AffineCoupling(new MLP(net, {}, rng())),
    permute === 'swap' ? new SwapHalves() : new Shuffle(D, rng()),
  ]).flat();
  const flow = new FlowModel(new DiagonalNormal([D]), new FlowSequence<Flow>(fromLatents.toReversed()));
  const slopes = withWeights(flow, reference.weights, (name) => {
    const [, index, rest] = /^flows\.(\d+)\.(.*)$/.exec(name) ?? [];
    if (index === undefined) return { name: name.replace('q0', 'base') };
    const prefix = `flow.flows.${fromLatents.length - 1 - Number(index)}`;
    return Number(index) % 2 ? { name: `${prefix}.${rest}` } : within(prefix, couplingName(rest));
  });
  const run = compile((given: Tensor, fixed: Tensor, weights: Tensor[]): Record<string, Tensor> => {
    const { x, logDet } = flow.inverse(given);
    const logProb = flow.logProb(fixed);
    const back = flow.forward(fixed);
    const loss = lossOf(reference, [logProb], weights);
    return {
      'out.x': x,
      'out.log_det': logDet,
      'out.log_prob': logProb,
      'out.z_back': back.z,
      'out.inverse_log_det': back.logDet,
      'out.forward_kld': logProb.mean().neg(),
      ...(loss && { 'out.loss': loss, ...slopes(loss) }),
    };
  });
  const given = reference.input('z');
  const first = compile((latent: Tensor) => flow.inverse(latent).x);
  return run(given, await first(given), lossWeights(reference));
};

const squeezes: Adapter = (reference) => {
  const run = compile(
    (x: Tensor): Record<string, Tensor> => ({ 'out.inverse': squeeze2x2(x), 'out.forward': unsqueeze2x2(x) }),
  );
  return run(reference.input('x')) as Promise<Outputs>;
};

export const adapters: Readonly<Record<string, Adapter>> = {
  ...Object.fromEntries(Object.keys(layers).map((kind) => [kind, layer(kind)])),
  ActNorm: (reference) => (reference.weights.size === 0 ? firstBatch(reference) : layer('ActNorm')(reference)),
  NormalizingFlow: model,
  Squeeze: squeezes,
};
