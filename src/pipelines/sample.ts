import { type NdArray, ndarray, zeros } from '../array/index.js';
import { type Guider, guidePrediction, type StepInfo, unguided } from '../guidance/index.js';
import type { Denoiser } from '../models/index.js';
import { withPerturbations } from '../nn/index.js';
import { Generator } from '../random/index.js';
import {
  applyStep,
  coefficientsOf,
  initialState,
  type PlanOptions,
  type Sampler,
  type SamplerPlan,
  scaleInput,
  usesNoise,
} from '../samplers/index.js';
import { type Compiled, type CompileOptions, compile, type Tensor } from '../tensor/index.js';
import { predict } from './predict.js';

export interface SampleOptions {
  readonly model: Denoiser;
  readonly sampler: Sampler;
  /** Number of steps, and whatever else the sampler's plan takes. */
  readonly plan: PlanOptions;
  /** Default: none, the plain conditional prediction. */
  readonly guidance?: Guider;
  /** The class of each image to make, 0..nullClass-1 (nullClass itself: no condition); all 0 for a model without classes. */
  readonly classes: readonly number[];
  /** What guidance moves away from; default: the null class. */
  readonly negativeClasses?: readonly number[];
  /** A seed, or a generator to go on with; default 0. */
  readonly seed?: number | Generator;
  /** [height, width]; default the model's. */
  readonly size?: readonly [number, number];
  /** Start from this instead of fresh noise: x scaled as the sampler expects it at its first call, [N, C, H, W]. */
  readonly latents?: NdArray<'float32'>;
  readonly signal?: AbortSignal;
  readonly compile?: CompileOptions;
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
 * @throws RangeError for a class out of range, or guidance without a null class; AbortError when the signal fires.
 */
export async function* sample(options: SampleOptions): AsyncGenerator<SampleStep, void, undefined> {
  const { model, sampler, guidance = unguided(), signal, seed = 0, classes } = options;
  const plan = sampler.plan(options.plan);
  const rng = seed instanceof Generator ? seed : new Generator(seed);
  const shape = [classes.length, model.inChannels, ...(options.size ?? [model.sampleSize, model.sampleSize])];
  const labels = labelsOf(model, classes);
  const negatives = negativeLabels(options);
  const steps = new Map<string, StepGraph>();
  const total = plan.calls.length;

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
      const info: StepInfo = { index: k, total, timestep: call.timestep };
      const branches = guidance.branches(info);
      if (branches.some((branch) => branch.condition === 'negative') && negatives === undefined)
        throw new RangeError(
          'sample: this guidance needs an unconditional prediction, but the model has no null class; give negativeClasses',
        );
      const key = branches.map((branch) => branch.name).join();
      const step = steps.get(key) ?? stepGraph(options, plan, guidance, info);
      steps.set(key, step);
      const result = await step({
        coefficients: coefficientsOf(plan, k),
        guidance: ndarray([...guidance.inputs(info)]),
        timestep: ndarray(new Float32Array(classes.length).fill(call.timestep)),
        labels,
        negatives: negatives ?? labels,
        noise: usesNoise(plan, k) ? rng.randn(shape) : zeros(shape),
        state,
        carried,
      });
      state = result.state;
      carried = result.carried;
      yield { step: k + 1, total, sample: state[0], x0: result.x0 };
    }
  } finally {
    for (const step of steps.values()) await step.release();
  }
}

/** The last sample of {@link sample}, [N, C, H, W] in [-1, 1] for a model of images. */
export async function sampleImages(
  options: SampleOptions & { onStep?: (step: SampleStep) => void },
): Promise<NdArray<'float32'>> {
  let last: NdArray | undefined;
  for await (const step of sample(options)) {
    options.onStep?.(step);
    last = step.sample;
  }
  return last as NdArray<'float32'>;
}

type StepInputs = {
  readonly coefficients: Tensor;
  readonly guidance: Tensor;
  readonly timestep: Tensor;
  readonly labels: Tensor;
  readonly negatives: Tensor;
  readonly noise: Tensor;
  readonly state: readonly Tensor[];
  readonly carried: readonly Tensor[];
};
type StepOutputs = { readonly state: readonly Tensor[]; readonly carried: readonly Tensor[]; readonly x0: Tensor };
type StepGraph = Compiled<[StepInputs], StepOutputs>;

function stepGraph(
  { model, compile: how }: SampleOptions,
  { layout }: SamplerPlan,
  guider: Guider,
  info: StepInfo,
): StepGraph {
  const branches = guider.branches(info);
  return compile(
    (inputs: StepInputs): StepOutputs => {
      const x = scaleInput(layout, inputs.coefficients, inputs.state[0]);
      const predictions = branches.map((branch) => {
        const label = branch.condition === 'positive' ? inputs.labels : inputs.negatives;
        const condition = model.nullClass === undefined ? undefined : label;
        const answer = () => predict(model, x, inputs.timestep, condition);
        return [branch.name, branch.perturb ? withPerturbations(branch.perturb(model), answer) : answer()] as const;
      });
      const channels = inputs.state[0].shape[1];
      const guided = guidePrediction(guider, new Map(predictions), inputs.guidance, inputs.carried, channels);
      const { state, x0 } = applyStep(layout, { ...inputs, prediction: guided.prediction });
      return { state, x0, carried: guided.state };
    },
    { freeze: true, ...how },
  );
}

function labelsOf(model: Denoiser, classes: readonly number[]): NdArray<'int64'> {
  const name = model.constructor.name;
  const last = model.nullClass ?? 0;
  for (const label of classes)
    if (!Number.isInteger(label) || label < 0 || label > last)
      throw new RangeError(`${name}: class label ${label} out of range 0..${Math.max(0, last - 1)}`);
  if (classes.length === 0) throw new RangeError(`${name}: expected at least one class to sample, got none`);
  return ndarray([...classes], [classes.length], 'int64');
}

function negativeLabels({ model, classes, negativeClasses }: SampleOptions): NdArray<'int64'> | undefined {
  if (negativeClasses && negativeClasses.length !== classes.length)
    throw new RangeError(`sample: ${negativeClasses.length} negative classes for ${classes.length} images`);
  if (negativeClasses) return labelsOf(model, negativeClasses);
  return model.nullClass === undefined
    ? undefined
    : labelsOf(
        model,
        classes.map(() => model.nullClass!),
      );
}

const scaled = (noise: NdArray<'float32'>, scale: number): NdArray<'float32'> =>
  scale === 1
    ? noise
    : ndarray(
        noise.data.map((x) => x * scale),
        noise.shape,
      );
