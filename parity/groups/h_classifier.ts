import { z } from 'zod';
import { type NdArray, ndarray } from '../../src/array/index.js';
import { predictedNoise, predictedX0 } from '../../src/diffusion/index.js';
import { classifierGuidance, gradientOf, guidePrediction } from '../../src/guidance/index.js';
import { camelCase } from '../../src/io/index.js';
import { EncoderUNet, type EncoderUNetOptions } from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import {
  applyStep,
  coefficientsOf,
  ddim,
  ddpm,
  predictionPerScore,
  type SamplerPlan,
} from '../../src/samplers/index.js';
import { compile, concat, constant, conv2d, gather, gradients, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase, Tensors } from '../case.js';

/** The source's arguments that ours lacks: they change how a computation is done, or only UNetModel's. */
const unknown = ['dims', 'use_checkpoint', 'use_fp16', 'num_heads_upsample', 'use_new_attention_order'];

function encoderOf(config: Readonly<Record<string, unknown>>): EncoderUNet {
  const ours = Object.entries(config).filter(([name]) => !unknown.includes(name));
  const options = Object.fromEntries(ours.map(([name, value]) => [camelCase(name), value]));
  if (options.numHeadChannels === -1) options.numHeadChannels = null;
  return new EncoderUNet(options as EncoderUNetOptions, new Generator(0));
}

/** One of the source's arrays as ours: the rows of each of our arrays among the source's, or all of it. */
interface Place {
  readonly name: string;
  readonly rows?: readonly number[];
}

const resnetParts: Readonly<Record<string, string>> = {
  'in_layers.0': 'norm1',
  'in_layers.2': 'conv1',
  'emb_layers.1': 'time_emb_proj',
  'out_layers.0': 'norm2',
  'out_layers.3': 'conv2',
  skip_connection: 'conv_shortcut',
};
const readoutParts: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  adaptive: { '0': 'norm', '3': 'linear' },
  attention: { '0': 'norm', '2.c_proj': 'linear', '2.qkv_proj': 'attention', '2': '' },
  spatial: { '0': 'linear_1', '2': 'linear_2' },
  spatial_v2: { '0': 'linear_1', '1': 'norm', '3': 'linear_2' },
};

/** Where the source's arrays are in ours. `newOrder`: q, k and v are three blocks, not three in each head. */
function placesOf({ config }: EncoderUNet, names: Iterable<string>, newOrder: boolean): Map<string, Place[]> {
  const prefixes: [string, string][] = [['input_blocks.0.0', 'conv_in']];
  let at = 1;
  for (const level of config.channelMult.keys()) {
    for (let i = 0; i < config.numResBlocks; i++, at++) {
      prefixes.push([`input_blocks.${at}.0`, `down_blocks.${level}.resnets.${i}`]);
      prefixes.push([`input_blocks.${at}.1`, `down_blocks.${level}.attentions.${i}`]);
    }
    if (level < config.channelMult.length - 1)
      prefixes.push([`input_blocks.${at++}.0`, `down_blocks.${level}.downsamplers.0`]);
  }
  prefixes.push(['middle_block.0', 'mid_block.resnets.0'], ['middle_block.1', 'mid_block.attentions.0']);
  prefixes.push(['middle_block.2', 'mid_block.resnets.1'], ['time_embed.0', 'time_embedding.linear_1']);
  prefixes.push(['time_embed.2', 'time_embedding.linear_2']);
  for (const [source, ours] of Object.entries(readoutParts[config.pool]))
    prefixes.push([`out.${source}`, ours ? `out.${ours}` : 'out']);

  prefixes.sort(([a], [b]) => b.length - a.length);

  const width = Math.trunc(config.channelMult[config.channelMult.length - 1] * config.modelChannels);
  const channelsAt = (prefix: string) => {
    const level = /^down_blocks\.(\d+)/.exec(prefix)?.[1];
    return level ? Math.trunc(config.channelMult[Number(level)] * config.modelChannels) : width;
  };
  const place = (name: string): Place[] => {
    const [source, ours] = prefixes.find(([prefix]) => name.startsWith(`${prefix}.`)) ?? missing(name);
    const rest = name.slice(source.length + 1);
    const [, part, leaf] = /^(?:(.*)\.)?(\w+)$/.exec(rest) ?? missing(name);
    if (part === 'qkv' || ours === 'out.attention')
      return thirds(
        channelsAt(ours),
        ours === 'out.attention' || newOrder ? undefined : headWidth(config, channelsAt(ours)),
      ).map((rows, i) => ({ name: `${ours}.to_${'qkv'[i]}.${leaf}`, rows }));
    if (part === 'op') return [{ name: `${ours}.conv.${leaf}` }];
    if (part === 'norm') return [{ name: `${ours}.group_norm.${leaf}` }];
    if (part === 'proj_out') return [{ name: `${ours}.to_out.0.${leaf}` }];
    return [{ name: [ours, part && resnetParts[part], leaf].filter(Boolean).join('.') }];
  };
  return new Map([...names].map((name) => [name, place(name)]));
}

const headWidth = ({ numHeads, numHeadChannels }: EncoderUNet['config'], channels: number): number =>
  numHeadChannels ?? channels / numHeads;

/** The rows of q, k and v: block by block, or head by head. */
const thirds = (channels: number, head = channels): number[][] =>
  [0, 1, 2].map((third) =>
    Array.from({ length: channels }, (_, i) => 3 * head * Math.floor(i / head) + third * head + (i % head)),
  );

function missing(name: string): never {
  throw new Error(`EncoderUNetModel: no place for '${name}'`);
}

/** Loads the source's arrays and says where they went. */
function load(model: EncoderUNet, weights: Tensors, config: Readonly<Record<string, unknown>>): Map<string, Place[]> {
  const places = placesOf(model, weights.keys(), config.use_new_attention_order === true);
  const variables = model.namedVariables();
  const state = new Map<string, NdArray>();
  for (const [name, parts] of places)
    for (const { name: ours, rows } of parts) {
      const { data, shape } = weights.get(name)!;
      const size = data.length / shape[0];
      const picked = rows
        ? rows.flatMap((row) => [...(data as Float32Array).slice(row * size, (row + 1) * size)])
        : data;
      state.set(ours, ndarray(Float32Array.from(picked as Float32Array), variables.get(ours)?.shape));
    }
  model.loadStateDict(state);
  return places;
}

async function encoder(reference: ReferenceCase): Promise<Outputs> {
  const { config, weights, tensors } = reference;
  const model = encoderOf(config);
  const places = load(model, weights, config);
  const weighted = tensors.has('loss_weight.0') ? [reference.given('loss_weight.0')] : [];
  const run = compile((x: Tensor, t: Tensor, y: Tensor, weight: readonly Tensor[]) => {
    const logits = model.forward(x, t);
    const outputs: Record<string, Tensor> = {
      'out.logits': logits,
      'out.grad_log_prob': gradientOf(model, x, t, y),
    };
    if (weight.length === 0) return outputs;
    const loss = logits.mul(weight[0]).sum();
    const parameters = model.namedParameters();
    const slopes = gradients(loss, [x, ...parameters.values()]);
    const slopeOf = new Map([...parameters.keys()].map((name, i) => [name, slopes[i + 1]]));
    for (const [name, parts] of places) {
      const { shape } = weights.get(name)!;
      const joined = parts.map(({ name: ours }) => slopeOf.get(ours)!.reshape([shape[0] / parts.length, -1]));
      outputs[`grad.${name}`] = unsorted(joined, parts).reshape(shape);
    }
    return { ...outputs, 'out.loss': loss, 'grad_in.x': slopes[0] };
  });
  const outputs = await run(reference.input('x'), reference.input('t'), reference.input('y'), weighted);
  await run.release();
  return outputs;
}

/** Rows of several arrays back in the source's order. */
function unsorted(arrays: readonly Tensor[], parts: readonly Place[]): Tensor {
  if (!parts[0].rows) return arrays[0];
  const order = parts.flatMap(({ rows }) => rows!);
  const back = order.map((_, row) => order.indexOf(row));
  return gather(concat(arrays), constant(back, 'int64'));
}

const guidanceConfig = z.object({
  steps: z.number(),
  learn_sigma: z.boolean(),
  sigma_small: z.boolean().default(false),
  noise_schedule: z.enum(['linear', 'cosine']),
  rescale_timesteps: z.boolean().default(false),
  classifier: z.record(z.string(), z.unknown()),
  /** The original timestep of each one kept, ascending. */
  timestep_map: z.array(z.number()),
});
type GuidanceConfig = z.output<typeof guidanceConfig>;

/** The betas between the timesteps kept, in float64, as SpacedDiffusion makes them. */
function respacedBetas({ steps, noise_schedule, timestep_map: kept }: GuidanceConfig): number[] {
  const alphaBar = (t: number) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2;
  const scale = 1000 / steps;
  const linear = (i: number) => scale * (1e-4 + ((0.02 - 1e-4) * i) / (steps - 1));
  const cosine = (i: number) => Math.min(1 - alphaBar((i + 1) / steps) / alphaBar(i / steps), 0.999);
  let product = 1;
  const products = Array.from({ length: steps }, (_, i) => {
    product *= 1 - (noise_schedule === 'linear' ? linear(i) : cosine(i));
    return product;
  });
  return kept.map((t, i) => 1 - products[t] / (i === 0 ? 1 : products[kept[i - 1]]));
}

/** condition_mean, condition_score, p_sample and ddim_sample for each image of a batch at a timestep of its own. */
async function guidance(reference: ReferenceCase): Promise<Outputs> {
  const config = guidanceConfig.parse(reference.config);
  const { call } = reference.read(z.object({ call: z.object({ classifier_scale: z.number() }) }));
  const part = (prefix: string): Tensors =>
    new Map(
      [...reference.weights].flatMap(([name, array]) =>
        name.startsWith(prefix) ? [[name.slice(prefix.length), array]] : [],
      ),
    );
  const classifier = encoderOf(config.classifier);
  load(classifier, part('classifier.'), config.classifier);
  const [weight, bias, table] = ['c.weight', 'c.bias', 'e.weight'].map((name) => part('model.').get(name)!);
  const model = (x: Tensor, timestep: Tensor, labels: Tensor): Tensor => {
    const shift = gather(constant(table), labels).mul(timestep.div(300).cos().mul(0.1).unsqueeze(1));
    return conv2d(x, constant(weight), constant(bias), { padding: 1 }).add(shift.reshape([...shift.shape, 1, 1]));
  };

  const trainedBetas = respacedBetas(config);
  const count = trainedBetas.length;
  const fixed = config.sigma_small ? 'fixed_small' : 'fixed_large';
  const varianceType = config.learn_sigma ? 'learned_range' : fixed;
  const schedule = { trainedBetas, numTrainTimesteps: count };
  const ancestral = (clipSample: boolean) => ddpm({ ...schedule, varianceType, clipSample }).plan({ steps: count });
  const implicit = (eta: number) => ddim({ ...schedule, clipSample: false }).plan({ steps: count, eta });
  const [plain, clipped] = [ancestral(false), ancestral(true)];
  const etas: readonly (readonly [string, SamplerPlan])[] = [...reference.tensors.keys()].flatMap((name) => {
    const eta = /^out\.ddim_eta(.+)$/.exec(name)?.[1];
    return eta === undefined ? [] : [[name, implicit(Number(eta))]];
  });
  const [score, mean] = (['score', 'mean'] as const).map((form) =>
    classifierGuidance(classifier, call.classifier_scale, { form }),
  );

  type Images = { x: Tensor; noise: Tensor; noiseOfDdim: Tensor };
  const step = async (index: number, label: number, images: Record<keyof Images, NdArray>): Promise<Outputs> => {
    const k = count - 1 - index;
    const { alpha, sigma, logStd, next } = plain.calls[k];
    const scale = config.rescale_timesteps ? 1000 / config.steps : 1;
    const info = { index: k, total: count, timestep: index, predictionPerScore: predictionPerScore(plain, k) };
    const run = compile(({ x, noise, noiseOfDdim }: Images, timestep: Tensor, labels: Tensor) => {
      const answer = model(x, timestep, labels);
      const channels = x.shape[1];
      const guided = (guider: typeof score, prediction: Tensor) => {
        const predictions = guider
          .branches(info)
          .map((b) => [b.name, b.predict?.(x, timestep, { labels }) ?? prediction] as const);
        return guidePrediction(guider, new Map(predictions), constant([...guider.inputs(info)]), [], channels);
      };
      const apply = (
        plan: SamplerPlan,
        { prediction, gradient }: Omit<ReturnType<typeof guided>, 'state'>,
        z?: Tensor,
      ) => {
        const coefficients = constant(coefficientsOf(plan, k));
        const result = applyStep(plan.layout, { coefficients, state: [x], prediction, gradient, noise: z ?? x.mul(0) });
        return { x: result.state[0], x0: result.x0 };
      };
      const unguided = apply(plain, { prediction: answer });
      const byScore = apply(plain, guided(score, answer));
      const logVariance = logStd
        ? answer
            .slice(1, channels)
            .mul(2 * logStd.slope)
            .add(2 * logStd.base)
        : x.mul(0).add(Math.log(next.x.gradient));
      const outputs: Record<string, Tensor> = {
        'out.p_mean': unguided.x,
        'out.p_pred_xstart': unguided.x0,
        'out.p_log_variance': logVariance,
        'out.p_variance': logVariance.exp(),
        'out.condition_mean': apply(plain, guided(mean, answer)).x,
        'out.condition_score.mean': byScore.x,
        'out.condition_score.pred_xstart': byScore.x0,
        'out.p_sample': apply(clipped, guided(mean, answer), noise).x,
      };
      // guided-diffusion clips before its DDIM form guides, and not again.
      const levels = { alpha: constant([alpha]), sigma: constant([sigma]) };
      const x0 = predictedX0('epsilon', answer.slice(1, 0, channels), x, levels).clamp(-1, 1);
      const epsilon = predictedNoise('x0', x0, x, levels);
      for (const [name, plan] of etas) outputs[name] = apply(plan, guided(score, epsilon), noiseOfDdim).x;
      return outputs;
    });
    const time = ndarray([config.timestep_map[index] * scale]);
    const outputs = await run(images, time, ndarray([label], [1], 'int64'));
    await run.release();
    return outputs;
  };

  const [times, labels] = [reference.input('t'), reference.input('y')];
  const names = { x: 'x', noise: 'noise_p', noiseOfDdim: 'noise_ddim' } as const;
  const results: Outputs[] = [];
  for (let i = 0; i < times.shape[0]; i++) {
    const images = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, nth(reference.input(name), i)]));
    results.push(await step(Number(times.data[i]), Number(labels.data[i]), images as Record<keyof Images, NdArray>));
  }
  return Object.fromEntries(
    Object.keys(results[0]).map((name) => [name, stacked(results.map((result) => result[name]))]),
  );
}

function nth({ data, shape: [count, ...shape] }: NdArray, i: number): NdArray {
  const size = data.length / count;
  return ndarray((data as Float32Array<ArrayBuffer>).slice(i * size, (i + 1) * size), [1, ...shape]);
}

const stacked = (parts: readonly NdArray[]): NdArray =>
  ndarray(Float32Array.from(parts.flatMap(({ data }) => [...(data as Float32Array)])), [
    parts.length,
    ...parts[0].shape.slice(1),
  ]);

export const adapters: Readonly<Record<string, Adapter>> = {
  EncoderUNetModel: encoder,
  'GaussianDiffusion.condition_mean': guidance,
};
