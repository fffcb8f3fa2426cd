import { type NdArray, ndarray, zeros } from '../array/index.js';
import { type Guider, guidePrediction, type StepInfo, unguided } from '../guidance/index.js';
import { type Module, withPerturbations } from '../nn/index.js';
import { Generator } from '../random/index.js';
import {
  applyStep,
  coefficientsOf,
  initialState,
  type Marginal,
  type PlanOptions,
  predictionPerScore,
  type Sampler,
  type SamplerPlan,
  scaleInput,
  usesNoise,
} from '../samplers/index.js';
import { type Compiled, type CompileOptions, compile, type Hosted, type Tensor } from '../tensor/index.js';
import { StepGraphs } from './stepGraphs.js';

/** What a model is told, by name. */
export type Tensors = Readonly<Record<string, Tensor | readonly Tensor[]>>;

/** What the whole step reads besides the condition: the same for every prediction. */
export interface Context<Shared> {
  readonly shared: Shared;
  /** What `numbers` gave for this step. */
  readonly numbers: Tensor;
  /** What `variant` gave for this step. */
  readonly variant: string;
  /** The condition's name: 'positive', 'negative' or another that guidance asks for. */
  readonly condition: string;
}

/**
 * A system to denoise with, as {@link denoise} traces it: a model and how its conditions reach it. Tensors that
 * depend on what is wanted are a condition; those that every prediction reads (control pictures, masks) are shared.
 */
export interface Denoising<Condition extends Tensors, Shared extends Tensors> {
  /** Whose layers guidance may perturb. */
  readonly model: Module;
  /** The prediction [N, C, ...] (or more channels, with a learned variance) for x as the model is to see it. */
  predict(x: Tensor, timestep: Tensor, condition: Condition, context: Context<Shared>): Tensor;
  /** Steps that differ in what is computed, not only in numbers, by name: one graph each. */
  variant?(step: StepInfo): string;
  /** Numbers that change from step to step, always as many. `next`: how noisy the step's result is meant to be. */
  numbers?(step: StepInfo, next: Marginal): readonly number[];
  /** What `predict` follows from besides the model, where graphs are kept: see {@link DenoiseOptions.graphs}. */
  readonly from?: readonly unknown[];
  /** What becomes of the sample after each step: inpainting puts the known part back. */
  settle?(x: Tensor, context: Omit<Context<Shared>, 'condition'>): Tensor;
}

export interface SamplingOptions {
  readonly sampler: Sampler;
  /** Number of steps, and whatever else the sampler's plan takes. */
  readonly plan: PlanOptions;
  /** Default: none, the plain conditional prediction. */
  readonly guidance?: Guider;
  /** A seed, or a generator to go on with; default 0. */
  readonly seed?: number | Generator;
  /** Start from this instead of fresh noise: x scaled as the sampler expects it at its first call, [N, C, H, W]. */
  readonly latents?: NdArray<'float32'>;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
}

export interface DenoiseOptions<Condition extends Tensors, Shared extends Tensors> extends SamplingOptions {
  readonly system: Denoising<Condition, Shared>;
  /** By the names that guidance asks for: 'positive', and where it needs more, 'negative' and others. */
  readonly conditions: Readonly<Record<string, Hosted<Condition>>>;
  readonly shared: Hosted<Shared>;
  /** Of the sample, [N, C, H, W]. */
  readonly shape: readonly number[];
  /** Steps compiled by earlier runs, which this one may use and adds to; default: its own, released at the end. */
  readonly graphs?: StepGraphs<StepGraph>;
}

export interface SampleStep {
  /** 1..total. */
  readonly step: number;
  readonly total: number;
  /** The sample after this step, [N, C, H, W]. */
  readonly sample: NdArray;
  /** The sampler's present estimate of the clean image, [N, C, H, W]. */
  readonly x0: NdArray;
}

/**
 * Denoises step by step, yielding after each. Model, guidance and the sampler's arithmetic of one step are one
 * compiled graph, made once per set of branches that the guidance asks for.
 * @throws RangeError when guidance needs a condition that is not there; AbortError when the signal fires.
 */
export async function* denoise<C extends Tensors, S extends Tensors>(
  options: DenoiseOptions<C, S>,
): AsyncGenerator<SampleStep, void, undefined> {
  const { system, sampler, guidance = unguided(), signal, seed = 0, shape, conditions } = options;
  const plan = sampler.plan(options.plan);
  const rng = seed instanceof Generator ? seed : new Generator(seed);
  const graphs = options.graphs ?? new StepGraphs<StepGraph>();
  const infos = stepsOf(sampler, plan);
  const total = infos.length;
  checkBranches(guidance, infos, conditions, system.model, [shape[2], shape[3]]);

  let state: readonly NdArray[] = initialState(
    plan.layout,
    options.latents ?? scaled(rng.randn(shape), plan.initialScale),
  );
  let carried: readonly NdArray[] = Array.from({ length: guidance.slots }, () =>
    zeros([shape[0], guidance.channels ?? shape[1], ...shape.slice(2)]),
  );
  try {
    for (const [k, call] of plan.calls.entries()) {
      signal?.throwIfAborted();
      const info = infos[k];
      const branches = guidance.branches(info);
      const variant = system.variant?.(info) ?? '';
      const values = [plan.layout.key, options.compile, variant, ...branches.map((branch) => branch.name)];
      const from = [JSON.stringify(values), system.model, guidance, ...(system.from ?? [])];
      const step = graphs.get(from, () => stepGraph(options, plan, guidance, info, variant));
      const result = await step({
        coefficients: coefficientsOf(plan, k),
        guidance: ndarray([...guidance.inputs(info)]),
        numbers: ndarray([...(system.numbers?.(info, plan.calls[k + 1] ?? clean) ?? [])]),
        timestep: ndarray(new Float32Array(shape[0]).fill(call.timestep)),
        conditions: conditions as Readonly<Record<string, Hosted<Tensors>>>,
        shared: options.shared as Hosted<Tensors>,
        noise: usesNoise(plan, k) ? rng.randn(shape) : zeros(shape),
        state,
        carried,
      });
      state = result.state;
      carried = result.carried;
      yield { step: k + 1, total, sample: state[0], x0: result.x0 };
    }
  } finally {
    if (!options.graphs) await graphs.release();
  }
}

const stepsOf = ({ predictionType }: Sampler, plan: SamplerPlan): StepInfo[] =>
  plan.calls.map(({ timestep }, index) => ({
    index,
    total: plan.calls.length,
    timestep,
    predictionType,
    predictionPerScore: predictionPerScore(plan, index),
  }));

/** Refuses what a later step would stumble over. */
function checkBranches(
  guidance: Guider,
  steps: readonly StepInfo[],
  conditions: object,
  model: Module,
  size: readonly [number, number],
): void {
  const branches = new Map(steps.flatMap((step) => guidance.branches(step)).map((branch) => [branch.name, branch]));
  for (const branch of branches.values()) {
    if (!(branch.condition in conditions)) throw new RangeError(`sample: ${lackOf(branch.condition)}`);
    branch.perturb?.(model, size);
  }
}

const clean: Marginal = { alpha: 1, sigma: 0 };

const lackOf = (condition: string): string =>
  condition === 'negative'
    ? 'this guidance needs an unconditional prediction, but the model has no null class or was trained without dropping conditions; give a negative condition, or use guidance without one (pag, autoguidance)'
    : `this guidance needs a condition '${condition}', which was not given`;

/**
 * The last sample of a run, calling `onStep` on the way and waiting for it.
 * @throws Error when it holds numbers that are not finite.
 */
export async function lastSample(
  steps: AsyncIterable<SampleStep>,
  onStep?: (step: SampleStep) => unknown,
): Promise<NdArray<'float32'>> {
  let last: NdArray | undefined;
  for await (const step of steps) {
    await onStep?.(step);
    last = step.sample;
  }
  const sample = last as NdArray<'float32'>;
  if (!sample.data.every(Number.isFinite))
    throw new Error(
      'sampling ended in numbers that are not finite: lower the guidance, take more steps, or check the weights',
    );
  return sample;
}

type StepInputs = {
  readonly coefficients: Tensor;
  readonly guidance: Tensor;
  readonly numbers: Tensor;
  readonly timestep: Tensor;
  readonly conditions: Readonly<Record<string, Tensors>>;
  readonly shared: Tensors;
  readonly noise: Tensor;
  readonly state: readonly Tensor[];
  readonly carried: readonly Tensor[];
};
type StepOutputs = { readonly state: readonly Tensor[]; readonly carried: readonly Tensor[]; readonly x0: Tensor };
export type StepGraph = Compiled<[StepInputs], StepOutputs>;

function stepGraph<C extends Tensors, S extends Tensors>(
  { system, compile: how }: DenoiseOptions<C, S>,
  { layout }: SamplerPlan,
  guider: Guider,
  info: StepInfo,
  variant: string,
): StepGraph {
  const branches = guider.branches(info);
  return compile(
    (inputs: StepInputs): StepOutputs => {
      const context = { shared: inputs.shared as S, numbers: inputs.numbers, variant };
      const x = scaleInput(layout, inputs.coefficients, inputs.state[0]);
      const predictions = branches.map((branch) => {
        const condition = inputs.conditions[branch.condition] as C;
        const answer = () =>
          branch.predict?.(x, inputs.timestep, condition) ??
          system.predict(x, inputs.timestep, condition, { ...context, condition: branch.condition });
        const layers = branch.perturb?.(system.model, [x.shape[2], x.shape[3]]);
        return [branch.name, layers ? withPerturbations(layers, answer) : answer()] as const;
      });
      const channels = inputs.state[0].shape[1];
      const guided = guidePrediction(guider, new Map(predictions), inputs.guidance, inputs.carried, channels);
      const { state, x0 } = applyStep(layout, {
        ...inputs,
        prediction: guided.prediction,
        gradient: guided.gradient,
      });
      const settled = system.settle ? [system.settle(state[0], context), ...state.slice(1)] : state;
      return { state: settled, x0, carried: guided.state };
    },
    { freeze: true, ...how },
  );
}

const scaled = (noise: NdArray<'float32'>, scale: number): NdArray<'float32'> =>
  scale === 1
    ? noise
    : ndarray(
        noise.data.map((x) => x * scale),
        noise.shape,
      );
