import { z } from 'zod';
import { type NdArray, ndarray, toFloat32 } from '../../src/array/index.js';
import { type NoiseScheduleConfig, noiseSchedule, shiftSigma } from '../../src/diffusion/index.js';
import { camelCase } from '../../src/io/index.js';
import {
  applyStep,
  coefficientsOf,
  euler,
  initialState,
  type Marginal,
  type Sampler,
  type SamplerPlan,
  samplerFromConfig,
  samplers,
  scaleInput,
} from '../../src/samplers/index.js';
import { compile, concat, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

type Numbers = ArrayLike<number>;
type Config = NoiseScheduleConfig & { shift: number; useDynamicShifting: boolean; timestepType?: string };

const settings = z.object({
  cls: z.string(),
  steps: z.number().nullish(),
  set_timesteps_kwargs: z.record(z.string(), z.unknown()).default({}),
  step_kwargs: z.record(z.string(), z.unknown()).default({}),
});

/** Cases whose name begins with `tables_` store the training tables alone, the others a run. */
const scheduler: Adapter = (reference) => (reference.tensors.has('sample_init') ? run(reference) : tables(reference));

/** A whole run of a sampler: its tables, how it adds noise, and every step with the case's stand-in for a model. */
async function run(reference: ReferenceCase): Promise<Outputs> {
  const { cls, steps, set_timesteps_kwargs, step_kwargs } = reference.read(settings);
  const sampler = samplerFromConfig({ ...reference.config, _class_name: cls });
  const given = Object.entries({ ...set_timesteps_kwargs, ...step_kwargs });
  const options = Object.fromEntries(
    given.filter(([key, value]) => !isIdle(reference, key, value)).map(([key, value]) => [camelCase(key), value]),
  );
  const plan = sampler.plan(
    'timesteps' in options || 'sigmas' in options ? options : { steps: steps ?? 0, ...options },
  );
  return {
    ...stored(reference, trainingTables(sampler), sampled),
    ...stored(reference, {
      timesteps: plan.calls.map((call) => call.timestep),
      ...sigmaTables(cls, plan),
      init_noise_sigma: [plan.initialScale],
    }),
    ...(await noised(reference, sampler, plan)),
    ...(await steppedThrough(reference, plan)),
  };
}

/** Arguments that diffusers takes, but that change nothing. */
const isIdle = ({ kind, config }: ReferenceCase, key: string, value: unknown): boolean =>
  (kind === 'FlowMatchEulerDiscreteScheduler' && /^s_(churn|tmin|tmax|noise)$/.test(key)) ||
  (key === 'num_train_timesteps' && value === config.num_train_timesteps);

/** Those of our numbers that the case stores, in the dtype it stores them in. */
function stored(
  reference: ReferenceCase,
  ours: Record<string, Numbers>,
  pick = (x: Numbers) => Array.from(x),
): Outputs {
  const entries = Object.entries(ours).flatMap(([name, values]) => {
    const theirs = reference.tensors.get(name);
    if (!theirs) return [];
    const picked = pick(values);
    return [[name, ndarray(picked, theirs.shape.length === 0 ? [] : [picked.length], theirs.dtype)] as const];
  });
  return Object.fromEntries(entries);
}

/** Cases with a run store every 111th entry of the training tables. */
const sampled = (values: Numbers): number[] => Array.from(values).filter((_, i) => i % 111 === 0);

/** The tables that diffusers' constructors make. */
function trainingTables(sampler: Sampler): Record<string, Numbers> {
  const config = sampler.config as unknown as Config;
  const descending = Array.from({ length: config.numTrainTimesteps }, (_, i) => config.numTrainTimesteps - 1 - i);
  if (sampler.className.startsWith('FlowMatch')) {
    const shift = config.useDynamicShifting ? 1 : config.shift;
    const sigmas = descending.map((t) => shiftSigma((t + 1) / config.numTrainTimesteps, shift));
    return { train_sigmas: sigmas, train_timesteps: sigmas.map((sigma) => sigma * config.numTrainTimesteps) };
  }
  const { betas, alphasCumprod } = noiseSchedule(config);
  const whole = runAtOnce(sampler, config.numTrainTimesteps);
  const continuous = config.timestepType === 'continuous' && sampler.predictionType === 'v';
  const sigmas = descending.map((t) => Math.sqrt(1 / (alphasCumprod[t] || 2 ** -24) - 1));
  const ending = sampler.className.startsWith('Euler') ? [0] : [];
  return {
    train_betas: betas,
    train_alphas_cumprod: alphasCumprod,
    train_sigmas: whole
      ? sigmaTables(sampler.className, whole).sigmas
      : ascendingSigmas.test(sampler.className)
        ? sigmas.reverse()
        : [...sigmas, ...ending],
    train_timesteps: continuous
      ? sigmas.map((sigma) => 0.25 * Math.log(sigma))
      : (whole?.calls.map((call) => call.timestep) ??
        (/Inverse/.test(sampler.className) ? descending.reverse() : descending)),
  };
}

/** The lists of sigmas that a scheduler keeps for a run. */
function sigmaTables(className: string, plan: SamplerPlan): Record<string, Numbers> {
  if (!className.startsWith('KDPM2')) return { sigmas: plan.sigmas ?? [] };
  // One entry per call and two at the end, each of the two calls of a step under the step's own level.
  const level = (calls: SamplerPlan['calls']) => [...calls.map((call) => call.sigma), 0];
  const doubled = (x: readonly number[]) => [x[0], ...x.slice(1).flatMap((y) => [y, y]), x[x.length - 1]];
  const sigmas = level(plan.calls.filter((_, k) => k % 2 === 0));
  const down = plan.calls.filter((_, k) => k % 2 === 1).map((call, i) => call.next.x.slope + sigmas[i]);
  return {
    sigmas: doubled(sigmas),
    sigmas_interpol: doubled([...level(plan.calls.filter((_, k) => k % 2 === 1)), 0]),
    sigmas_down: doubled([...down, 0, 0]),
  };
}

/** The run that some constructors make of all timesteps. */
function runAtOnce({ className, plan }: Sampler, count: number): SamplerPlan | undefined {
  if (className.startsWith('EDMEuler')) return plan({ steps: count + 1 });
  if (/^(Heun|KDPM2|EDM)/.test(className)) return plan({ steps: count });
  const firstOrder = { steps: count, order: 1 };
  return className.startsWith('LMS') ? plan(firstOrder) : undefined;
}

/** These keep their training sigmas in the order of training; the others turn them round. */
const ascendingSigmas = /^(DPMSolver|UniPC|DEIS)/;

/** add_noise, scale_noise and get_velocity, before a run is set up (`train`) and after. */
async function noised(reference: ReferenceCase, sampler: Sampler, plan: SamplerPlan): Promise<Outputs> {
  if (!reference.tensors.has('x0')) return {};
  const [x0, noise] = [reference.given('x0'), reference.given('noise_x0')];
  const mix = compile((x: Tensor, ofX: Tensor, y: Tensor, ofY: Tensor) => x.mul(ofX).add(y.mul(ofY)));
  const perSample = (values: number[]) => ndarray(values, [values.length, ...x0.shape.slice(1).map(() => 1)]);
  const combine = (x: NdArray, y: NdArray, weights: readonly (readonly [number, number])[]) =>
    mix(x, perSample(weights.map(([a]) => a)), y, perSample(weights.map(([, b]) => b)));

  const { sigmas } = sigmaTables(sampler.className, plan);
  // KDPM2 takes the level of a step's second call from its list of sigmas, too.
  const inRunAt = (k: number): Marginal =>
    sampler.className.startsWith('KDPM2') ? { alpha: 1, sigma: sigmas[k] } : plan.calls[k];
  const inRun = (t: number): Marginal =>
    inRunAt(
      placeOf(
        plan.calls.map((call) => call.timestep),
        t,
      ),
    );
  const byPlace = /^(DPMSolver|UniPC|DEIS|KDPM2|EDM|Heun|LMS)/.test(sampler.className);
  const inTraining = byPlace ? (t: number) => listed(sampler, t) : sampler.marginal;
  const outputs: Record<string, NdArray> = {};
  for (const [suffix, marginalOf] of [
    ['_train', inTraining],
    ['_infer', inRun],
    ['', sampler.marginal],
  ] as const) {
    const name = suffix === '' ? 'scale_noise' : `add_noise${suffix}`;
    if (!reference.tensors.has(name)) continue;
    const times = Array.from(reference.given(`${name}_t`).data as Float32Array, Number);
    const marginals = times.map(marginalOf);
    outputs[name] = await combine(
      x0,
      noise,
      marginals.map(({ alpha, sigma }) => [alpha, sigma]),
    );
    const velocity = `get_velocity${suffix}`;
    if (!reference.tensors.has(velocity)) continue;
    const list =
      suffix === '_infer' ? plan.calls.map((call) => call.timestep) : trainingTables(sampler).train_timesteps;
    const preserved = times.map((t) => velocityWeights(sampler, list, t));
    outputs[velocity] = await combine(
      noise,
      x0,
      preserved.map(({ alpha, sigma }) => [alpha, -sigma]),
    );
  }
  await mix.release();
  return outputs;
}

/** Where a timestep stands in a list: the nearest, and of equal ones the second, as diffusers takes it. */
function placeOf(timesteps: Numbers, t: number): number {
  const list = Array.from(timesteps);
  const nearest = list.reduce((best, x, i) => (Math.abs(x - t) < Math.abs(list[best] - t) ? i : best), 0);
  const next = list.indexOf(list[nearest], nearest + 1);
  return next < 0 ? nearest : next;
}

/**
 * Before a run is set up, these look sigmas up by the place in the list of timesteps, although the DPM-Solvers' stand
 * the other way round, and KDPM2's between two steps belong to the lower one.
 */
function listed(sampler: Sampler, t: number): Marginal {
  const { train_sigmas, train_timesteps } = trainingTables(sampler);
  const sigma = train_sigmas[placeOf(train_timesteps, t)];
  if (!ascendingSigmas.test(sampler.className)) return { alpha: 1, sigma };
  const { useFlowSigmas } = sampler.config as { useFlowSigmas?: boolean };
  const alpha = useFlowSigmas ? 1 - sigma : 1 / Math.sqrt(sigma ** 2 + 1);
  return { alpha, sigma: useFlowSigmas ? sigma : sigma * alpha };
}

/** EulerDiscreteScheduler.get_velocity looks alphas_cumprod up by the place in the descending list of timesteps. */
function velocityWeights(sampler: Sampler, timesteps: Numbers, t: number): Marginal {
  const { alphasCumprod } = noiseSchedule(sampler.config as unknown as Config);
  const byPlace = sampler.className === 'EulerDiscreteScheduler';
  const alphaBar = alphasCumprod[byPlace ? placeOf(timesteps, t) : t] || (byPlace ? 2 ** -24 : 0);
  return { alpha: Math.sqrt(alphaBar), sigma: Math.sqrt(1 - alphaBar) };
}

/** Every step, on a stand-in for a model: 0.1 of its input plus 0.05 sin(t / 100). */
async function steppedThrough(reference: ReferenceCase, plan: SamplerPlan): Promise<Outputs> {
  const { layout, calls, initialScale } = plan;
  const unit = toFloat32(reference.given('init_noise'));
  const start = ndarray(
    unit.data.map((x) => x * Math.fround(initialScale)),
    unit.shape,
  );
  const noiseOf = recordedNoise(reference, start);

  const step = compile((coefficients: Tensor, state: readonly Tensor[], offset: Tensor, noise: Tensor) => {
    const input = scaleInput(layout, coefficients, state[0]);
    const mean = input.mul(0.1).add(offset);
    const squashed = input.tanh();
    const variance = { none: undefined, learned_range: squashed, learned: squashed.square().mul(0.02).add(0.001) };
    const learned = variance[layout.learnedVariance];
    const prediction = learned ? concat([mean, learned], 1) : mean;
    return { ...applyStep(layout, { coefficients, state, prediction, noise }), input, prediction };
  });
  const results: Awaited<ReturnType<typeof step>>[] = [];
  let state: readonly NdArray[] = initialState(layout, start);
  for (const [k, call] of calls.entries()) {
    const offset = ndarray([0.05 * Math.sin(call.timestep / 100)], []);
    results.push(await step(coefficientsOf(plan, k), state, offset, noiseOf(k)));
    state = results[k].state;
  }
  await step.release();
  return {
    sample_init: start,
    prev_samples: stacked(results.map((result) => result.state[0])),
    ...firstOf(
      reference,
      'model_outputs_first2',
      results.map((result) => result.prediction),
    ),
    ...firstOf(
      reference,
      'scaled_inputs_first3',
      results.map((result) => result.input),
    ),
    ...firstOf(
      reference,
      'pred_original_samples_first3',
      results.map(({ x0 }, k) => atBoundary(reference, calls[k].timestep, results[k - 1]?.state[0] ?? start, x0)),
    ),
  };
}

/** What LCM calls denoised is x0 after its boundary condition: weighted, with a little of x. */
function atBoundary({ kind, config }: ReferenceCase, t: number, x: NdArray, x0: NdArray): NdArray {
  if (kind !== 'LCMScheduler') return x0;
  const scaled = t * Number(config.timestep_scaling ?? 10);
  const skip = 0.25 / (scaled ** 2 + 0.25);
  const ofX = toFloat32(x).data;
  return ndarray(
    toFloat32(x0).data.map((value, i) => skip * ofX[i] + scaled * Math.sqrt(4 * skip) * value),
    x0.shape,
  );
}

/** What the scheduler drew in call k: zeros where it drew nothing. */
function recordedNoise(reference: ReferenceCase, like: NdArray<'float32'>): (k: number) => NdArray {
  const silent = ndarray(new Float32Array(like.data.length), like.shape);
  if (!reference.tensors.has('noise')) return () => silent;
  const noise = toFloat32(reference.given('noise'));
  const drawnIn = Array.from(reference.given('noise_step_index').data as BigInt64Array, Number);
  const size = like.data.length;
  return (k) => {
    const i = drawnIn.indexOf(k);
    return i < 0 ? silent : ndarray(noise.data.slice(i * size, (i + 1) * size), like.shape);
  };
}

const stacked = (arrays: readonly NdArray[]): NdArray => {
  const size = arrays[0].data.length;
  const data = new Float32Array(size * arrays.length);
  for (const [i, array] of arrays.entries()) data.set(array.data as Float32Array, i * size);
  return ndarray(data, [arrays.length, ...arrays[0].shape]);
};

const firstOf = (reference: ReferenceCase, name: string, arrays: readonly NdArray[]): Outputs => {
  const count = reference.tensors.get(name)?.shape[0];
  return count === undefined ? {} : { [name]: stacked(arrays.slice(0, count)) };
};

/** The training tables alone, in full. */
function tables(reference: ReferenceCase): Outputs {
  const sampler = samplerFromConfig({ ...reference.config, _class_name: reference.kind });
  const config = sampler.config as unknown as Config;
  const { betas, alphasCumprod } = noiseSchedule(config);
  const zeroSnr = noiseSchedule({ ...config, rescaleBetasZeroSnr: true });
  const { numTrainTimesteps, betaSchedule, betaStart, betaEnd } = config;
  const { marginal } = euler({ numTrainTimesteps, betaSchedule, betaStart, betaEnd });
  const descending = Array.from(betas, (_, i) => betas.length - 1 - i);
  return stored(reference, {
    betas,
    alphas_cumprod: alphasCumprod,
    timesteps: descending,
    sigmas_euler: [...descending.map((t) => marginal(t).sigma), 0],
    zero_snr_betas: zeroSnr.betas,
    zero_snr_alphas_cumprod: zeroSnr.alphasCumprod,
  });
}

export const adapters: Readonly<Record<string, Adapter>> = Object.fromEntries(
  samplers.map(({ className }) => [className, scheduler]),
);
