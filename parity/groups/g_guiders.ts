import { z } from 'zod';
import { type NdArray, ndarray, zeros } from '../../src/array/index.js';
import type { Branch, GuidanceOptions, Guider, Interval, StepInfo } from '../../src/guidance/index.js';
import * as guidance from '../../src/guidance/index.js';
import { type Denoiser, denoiserClass } from '../../src/models/index.js';
import { withPerturbations } from '../../src/nn/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const common = z.looseObject({
  guidance_scale: z.number().optional(),
  guidance_rescale: z.union([z.number(), z.array(z.number())]).default(0),
  use_original_formulation: z.boolean().default(false),
  start: z.union([z.number(), z.array(z.number())]).default(0),
  stop: z.union([z.number(), z.array(z.number())]).default(1),
  enabled: z.boolean().default(true),
});
type Config = z.output<typeof common>;

const numberOf = (config: Config, key: string, missing: number): number => z.number().parse(config[key] ?? missing);
const windowOf = (start: number, stop: number): Interval => (start < stop ? [start, stop] : () => false);
/** The windows of what is added to classifier-free guidance begin one step later. */
const strictWindow =
  (start: number, stop: number): Interval =>
  ({ index, total }) =>
    index > Math.floor(start * total) && index < Math.floor(stop * total);

const optionsOf = (config: Config): GuidanceOptions => ({
  interval: windowOf(z.number().parse(config.start), z.number().parse(config.stop)),
  rescale: z.number().parse(config.guidance_rescale),
  convention: config.use_original_formulation ? 'paper' : 'standard',
});
const scaleOf = (config: Config, missing = 7.5): number => config.guidance_scale ?? missing;

const many = <T extends z.ZodType>(item: T) => z.union([z.array(item), item.transform((x) => [x])]);
const layerSkip = z.object({
  indices: many(z.number()),
  fqn: z.string().default('auto'),
  skip_attention: z.boolean().default(true),
  skip_attention_scores: z.boolean().default(false),
  skip_ff: z.boolean().default(true),
  dropout: z.number().default(1),
});

/** diffusers' LayerSkipConfig, also as Python prints it. */
function skipOf(value: unknown): guidance.SkipOptions {
  const config = layerSkip.parse(typeof value === 'string' ? fromPython(value) : value);
  const { indices, fqn, skip_attention, skip_attention_scores, skip_ff, dropout } = config;
  const layers = fqn === 'auto' ? indices : new RegExp(`^${fqn}\\.(${indices.join('|')})(\\.|$)`);
  const skip = skip_attention ? (skip_ff ? 'block' : 'attention') : skip_attention_scores ? 'scores' : 'feedForward';
  return { layers, skip, dropout };
}

/** `Name(a=[1], b='x', c=True)` as an object. */
function fromPython(text: string): unknown {
  const inner = /^\w+\((.*)\)$/s.exec(text)?.[1] ?? '';
  const json = inner
    .replace(/(\w+)=/g, '"$1":')
    .replaceAll("'", '"')
    .replace(/\b(True|False|None)\b/g, (word) => (word === 'None' ? 'null' : word.toLowerCase()));
  return JSON.parse(`{${json}}`);
}

/** Where a guider's configuration names layers: `<key>_config` as one or a list, or `<key>_layers`. */
function skipsOf(config: Config, key: string): guidance.SkipOptions[] {
  const own = config[`${key}_config`];
  const dropout = numberOf(config, 'dropout', 1);
  if (own) return (Array.isArray(own) ? own : [own]).map(skipOf);
  return many(z.number())
    .parse(config[`${key}_layers`])
    .map((indices) => skipOf({ indices, dropout }));
}

/** One prediction with all of these at once. */
function merged(branches: readonly Branch[]): Branch {
  const perturb: Branch['perturb'] = (model, size) =>
    new Map(branches.flatMap((branch) => [...(branch.perturb?.(model, size) ?? [])]));
  return { ...branches[0], name: branches.map(({ name }) => name).join(' and '), perturb };
}

/** Classifier-free guidance, and more with a scale and window of its own: the guiders of three predictions. */
function three(config: Config, key: string, window: readonly [number, number], other: Branch): Guider {
  const options = optionsOf(config);
  const cfg = guidance.cfg(scaleOf(config), { ...options, rescale: 0 });
  const scale = numberOf(config, `${key}_scale`, 2.8);
  // Without classifier-free guidance, diffusers counts from the perturbed prediction, so that 1 is off there.
  const fromPerturbed = (step: StepInfo) => options.convention === 'standard' && cfg.inputs(step)[0] === 1;
  const added = (step: StepInfo) => (scale === 0 || !fromPerturbed(step) ? scale : scale - 1);
  const [start, stop] = [`${key}_start`, `${key}_stop`].map((name, i) => numberOf(config, name, window[i]));
  const more = guidance.contrast(added, { interval: strictWindow(start, stop) }, { other, convention: 'paper' });
  return guidance.guide(cfg, more, { rescale: options.rescale });
}

const otherOf = (guider: Guider): Branch => guider.branches({ index: 0, total: 1, timestep: 0 })[1];

function apgOptions(config: Config, momentum: number, limit: number, eta: number): guidance.ApgOptions {
  const axes = config.adaptive_projected_guidance_norm_dim ?? undefined;
  return {
    ...optionsOf(config),
    momentum:
      config.adaptive_projected_guidance_momentum === null
        ? 0
        : numberOf(config, 'adaptive_projected_guidance_momentum', momentum),
    normThreshold: numberOf(config, 'adaptive_projected_guidance_rescale', limit),
    eta: numberOf(config, 'eta', eta),
    axes: axes === undefined ? undefined : many(z.number()).parse(axes),
    base: config.use_original_formulation ? 'conditional' : 'unconditional',
  };
}

function apgMix(config: Config): Guider {
  const [cfg, apg] = [scaleOf(config, 3.5), numberOf(config, 'adaptive_projected_guidance_scale', 10)];
  const off = config.use_original_formulation ? 0 : 1;
  const options = { ...apgOptions(config, -0.5, 10, 0) };
  const start = numberOf(config, 'adaptive_projected_guidance_start_step', 5);
  // diffusers switches all off with the first scale, and stays with the first when the second is off.
  if (cfg === off) return guidance.unguided();
  return guidance.apgMix(cfg, apg, { ...options, cfgSteps: apg === off ? Number.POSITIVE_INFINITY : start + 1 });
}

function frequencyDecoupled(config: Config): Guider {
  const scales = z.array(z.number()).parse(config.guidance_scales ?? [10, 5]);
  const each = (value: number | number[]) => (typeof value === 'number' ? scales.map(() => value) : value);
  const [starts, stops, rescales] = [config.start, config.stop, config.guidance_rescale].map(each);
  return guidance.frequencyDecoupled(scales, {
    interval: starts.map((start, i) => windowOf(start, stops[i])),
    rescale: config.guidance_rescale_space === 'freq' ? rescales : rescales[0],
    parallelWeights: each(z.union([z.number(), z.array(z.number())]).parse(config.parallel_weights ?? 1)),
    convention: config.use_original_formulation ? 'paper' : 'standard',
    base: config.use_original_formulation ? 'conditional' : 'unconditional',
  });
}

interface Kind {
  create(config: Config): Guider;
  /** How the cases call the prediction that is neither the positive nor the negative one. */
  readonly third?: string;
}

const kinds: Readonly<Record<string, Kind>> = {
  ClassifierFreeGuidance: { create: (config) => guidance.cfg(scaleOf(config), optionsOf(config)) },
  ClassifierFreeZeroStarGuidance: {
    create: (config) =>
      guidance.cfgZeroStar(scaleOf(config), {
        ...optionsOf(config),
        zeroInitSteps: numberOf(config, 'zero_init_steps', 1),
      }),
  },
  AdaptiveProjectedGuidance: { create: (config) => guidance.apg(scaleOf(config), apgOptions(config, 0, 15, 1)) },
  AdaptiveProjectedMixGuidance: { create: apgMix },
  TangentialClassifierFreeGuidance: { create: (config) => guidance.tangentialCfg(scaleOf(config), optionsOf(config)) },
  MagnitudeAwareGuidance: {
    create: (config) =>
      guidance.magnitudeAware(scaleOf(config, 10), { ...optionsOf(config), alpha: numberOf(config, 'alpha', 8) }),
  },
  FrequencyDecoupledGuidance: { create: frequencyDecoupled },
  AutoGuidance: {
    third: 'pred_uncond',
    create(config) {
      const branches = skipsOf(config, 'auto_guidance').map((skip) => guidance.skipBranch(skip, 'negative'));
      return guidance.contrast(scaleOf(config), optionsOf(config), { other: merged(branches) });
    },
  },
  SkipLayerGuidance: {
    third: 'pred_cond_skip',
    create(config) {
      const key = config.skip_layer_config ? 'skip_layer' : 'skip_layer_guidance';
      const branches = skipsOf(config, key).map((skip) => guidance.skipBranch(skip));
      return three(config, 'skip_layer_guidance', [0.01, 0.2], merged(branches));
    },
  },
  PerturbedAttentionGuidance: {
    third: 'pred_cond_skip',
    create(config) {
      const branches = skipsOf(config, 'perturbed_guidance').map(({ layers }) => otherOf(guidance.pag(1, { layers })));
      return three(config, 'perturbed_guidance', [0.01, 0.2], merged(branches));
    },
  },
  SmoothedEnergyGuidance: {
    third: 'pred_cond_seg',
    create(config) {
      const sigma = numberOf(config, 'seg_blur_sigma', 9999999);
      const blur = sigma > numberOf(config, 'seg_blur_threshold_inf', 9999) ? Number.POSITIVE_INFINITY : sigma;
      const branches = skipsOf(config, 'seg_guidance').map(({ layers }) =>
        otherOf(guidance.smoothedEnergy(1, { layers, sigma: blur })),
      );
      return three(config, 'seg_guidance', [0, 1], merged(branches));
    },
  },
};

/** Every step of a guider on stored predictions, or with a model; the first axis of every tensor is the step. */
const guided =
  (kind: Kind): Adapter =>
  async (reference) => {
    const { call } = reference.read(z.object({ call: z.looseObject({ model: z.string().optional() }) }));
    if (call.model !== undefined) return guidedRun(reference, kind);
    const total = z.number().parse(call.num_inference_steps);
    const config = common.parse(reference.config);
    const guider = config.enabled ? kind.create(config) : guidance.unguided();
    const { shape } = reference.input('pred_cond');
    const [steps, ...each] = shape;
    const size = each.reduce((n, d) => n * d, 1);
    const stored = ({ name }: Branch): string =>
      name === 'positive' ? 'pred_cond' : name === 'negative' ? 'pred_uncond' : (kind.third ?? name);
    const out = new Float32Array(steps * size);
    let state: readonly NdArray[] = Array.from({ length: guider.slots }, () => zeros(each));
    for (let index = 0; index < steps; index++) {
      const step: StepInfo = { index, total, timestep: 0 };
      const branches = guider.branches(step);
      const run = compile((inputs: Tensor, predictions: readonly Tensor[], slots: readonly Tensor[]) => {
        const byName = new Map(predictions.map((prediction, i) => [branches[i].name, prediction]));
        const { prediction, state } = guidance.guidePrediction(guider, byName, inputs, slots, each[1]);
        return { prediction, state };
      });
      const predictions = branches.map((branch) => {
        if (branch.predict) return zeros(each); // the zeros of CFG-Zero*
        const all = reference.input(stored(branch)).data as Float32Array;
        return ndarray(all.slice(index * size, (index + 1) * size), each);
      });
      const result = await run(ndarray([...guider.inputs(step)]), predictions, state);
      await run.release();
      out.set(result.prediction.data as Float32Array, index * size);
      state = result.state;
    }
    return { 'out.pred': ndarray(out, shape), ...(state[0] && { 'out.momentum_running_average_final': state[0] }) };
  };

function modelOf(reference: ReferenceCase, name: string): Denoiser {
  const model = denoiserClass(name).fromJson(reference.config, new Generator(0));
  model.loadStateDict(reference.weights);
  return model;
}

const predicted = (model: Denoiser, branch: Branch, size: readonly [number, number], forward: () => Tensor): Tensor =>
  branch.perturb ? withPerturbations(branch.perturb(model, size), forward) : forward();

const runCall = z.object({
  model: z.string(),
  timesteps: z.array(z.number()),
  update: z.string(),
  null_label: z.number(),
  guider: z.record(z.string(), z.unknown()),
});

/** A few steps of a model under a guider, with an update of the sample that the case writes as a formula. */
async function guidedRun(reference: ReferenceCase, kind: Kind): Promise<Outputs> {
  const { call } = reference.read(z.object({ call: runCall }));
  const model = modelOf(reference, call.model);
  const config = common.parse(call.guider);
  const guider = config.enabled ? kind.create(config) : guidance.unguided();
  const [, sign, factor] = /^x = x ([+-]) ([\d.]+)\s*\*\s*pred$/.exec(call.update) ?? [];
  const rate = Number(`${sign}${factor}`);
  const labels = reference.input('labels');
  const negatives = ndarray(Array<number>(labels.data.length).fill(call.null_label), labels.shape, 'int64');
  let x = reference.input('x');
  let state: readonly NdArray[] = Array.from({ length: guider.slots }, () => zeros(x.shape));
  const all: number[] = [];
  for (const [index, timestep] of call.timesteps.entries()) {
    const step: StepInfo = { index, total: call.timesteps.length, timestep };
    const run = compile((x: Tensor, t: Tensor, labels: readonly Tensor[], inputs: Tensor, slots: readonly Tensor[]) => {
      const predictions = guider.branches(step).map((branch) => {
        const forward = () =>
          branch.predict?.(x, t, {}) ?? model.forward(x, t, labels[Number(branch.condition === 'negative')]);
        return [branch.name, predicted(model, branch, [x.shape[2], x.shape[3]], forward)] as const;
      });
      const guided = guidance.guidePrediction(guider, new Map(predictions), inputs, slots, x.shape[1]);
      return { x: x.add(guided.prediction.mul(rate)), state: guided.state };
    });
    const times = ndarray(new Float32Array(x.shape[0]).fill(timestep));
    ({ x, state } = await run(x, times, [labels, negatives], ndarray([...guider.inputs(step)]), state));
    await run.release();
    all.push(...(x.data as Float32Array));
  }
  return { 'out.x_steps': ndarray(all, [call.timesteps.length, ...x.shape]) };
}

/** A model as it is, and with diffusers' layer-skip hooks. */
async function skipped(reference: ReferenceCase): Promise<Outputs> {
  const { call } = reference.read(z.object({ call: z.object({ model: z.string(), config: z.unknown() }) }));
  const model = modelOf(reference, call.model);
  const branch = guidance.skipBranch(skipOf(call.config));
  const run = compile((x: Tensor, t: Tensor, labels: Tensor) => {
    const forward = () => model.forward(x, t.cast('float32'), labels);
    return { 'out.base': forward(), 'out.perturbed': predicted(model, branch, [x.shape[2], x.shape[3]], forward) };
  });
  const [x, t, labels] = ['hidden_states', 'timestep', 'class_labels'].map((name) => reference.input(name));
  const outputs = await run(x, t, labels);
  await run.release();
  return outputs;
}

async function rescaled(reference: ReferenceCase): Promise<Outputs> {
  const { call } = reference.read(z.object({ call: z.object({ guidance_rescale: z.number() }) }));
  const run = compile((a: Tensor, b: Tensor, share: Tensor) => guidance.rescaleGuidance(a, b, share));
  const share = ndarray([call.guidance_rescale]);
  const out = await run(reference.input('noise_cfg'), reference.input('noise_pred_text'), share);
  await run.release();
  return { out };
}

async function pyramid(reference: ReferenceCase): Promise<Outputs> {
  const { call } = reference.read(z.object({ call: z.object({ max_level: z.number() }) }));
  const run = compile((x: Tensor) => ({
    'out.pyrdown': guidance.pyramidDown(x),
    'out.pyrup': guidance.pyramidUp(x),
    ...Object.fromEntries(guidance.laplacianPyramid(x, call.max_level).map((level, i) => [`out.level${i}`, level])),
  }));
  const outputs = await run(reference.input('x'));
  await run.release();
  return outputs;
}

async function blur(reference: ReferenceCase): Promise<Outputs> {
  const { call } = reference.read(z.object({ call: z.object({ kernel_size: z.number(), sigma: z.number() }) }));
  const run = compile((x: Tensor) => guidance.gaussianBlur2d(x, call.kernel_size, call.sigma));
  const out = await run(reference.input('img'));
  await run.release();
  return { out };
}

export const adapters: Readonly<Record<string, Adapter>> = {
  ...Object.fromEntries(Object.entries(kinds).map(([name, kind]) => [name, guided(kind)])),
  AttentionProcessorSkipHook: skipped,
  FeedForwardSkipHook: skipped,
  TransformerBlockSkipHook: skipped,
  rescale_noise_cfg: rescaled,
  build_laplacian_pyramid: pyramid,
  gaussian_blur_2d: blur,
};
