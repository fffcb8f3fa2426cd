import { type NdArray, ndarray } from '../array/index.js';
import { type Sde, samplePrior, vpSde } from '../diffusion/index.js';
import { type Guider, guidePrediction, negative, positive, type StepInfo, unguided } from '../guidance/index.js';
import type { Denoiser } from '../models/index.js';
import { withPerturbations } from '../nn/index.js';
import { Generator } from '../random/index.js';
import {
  bitsPerDimension,
  conditioning,
  type FlowOptions,
  hutchinsonProbe,
  logLikelihood,
  predictorCorrectorFor,
  probabilityFlow,
  type Sampler,
  type ScoreDivergenceFunction,
  type ScoreFunction,
  scoreDivergence,
} from '../samplers/index.js';
import { type Compiled, type CompileOptions, compile, type Tensor } from '../tensor/index.js';
import { labelsOf } from './labels.js';
import { predict } from './predict.js';

export interface ScoreModelOptions {
  readonly model: Denoiser;
  /** A sampler the model is for: it knows the model's noise schedule and what it predicts. */
  readonly sampler: Sampler;
  /** Default: the variance preserving one. */
  readonly sde?: Sde;
  /** The class of each sample, 0..nullClass (nullClass itself: no condition); all 0 for a model without classes. */
  readonly classes: readonly number[];
  /** Default: none. One that carries something from step to step is refused: a score is a function of x and t alone. */
  readonly guidance?: Guider;
  readonly compile?: CompileOptions;
}

/** The score of a diffusion model in an SDE's own time and scaling, guided or not. */
export interface ScoreModel {
  readonly sde: Sde;
  readonly score: ScoreFunction;
  readonly scoreDivergence: ScoreDivergenceFunction;
  release(): Promise<void>;
}

type Inputs = {
  readonly x: Tensor;
  /** inputScale, the score's weights of x and of the prediction, and guidance's numbers. */
  readonly numbers: Tensor;
  readonly timestep: Tensor;
  readonly labels: Tensor;
  readonly negatives: Tensor;
};

/** Guidance's intervals are shares of the way from 1 to 0 in t, told in this many steps. */
const guidanceSteps = 1000;

/**
 * Any model of images and class labels as the score of a VP, sub-VP or VE SDE, compiled once per set of branches that
 * guidance asks for.
 * @throws RangeError for a class out of range, for guidance that carries state or needs what the model does not know.
 */
export function scoreModel(options: ScoreModelOptions): ScoreModel {
  const { model, sampler, sde = vpSde(), classes, guidance = unguided(), compile: how } = options;
  if (guidance.slots > 0)
    throw new RangeError('scoreModel: expected guidance that is a function of x and t alone, got one with momentum');
  const { config, predictionType } = predictorCorrectorFor(sampler);
  const ask = conditioning(sde, { ...config, predictionType });
  const last = model.nullClass ?? 0;
  const labels = labelsOf(model.constructor.name, classes, last);
  const negatives = ndarray(
    classes.map(() => last),
    [classes.length],
    'int64',
  );

  const graph = (inputs: Inputs, x: Tensor, info: StepInfo): Tensor => {
    const number = (i: number) => inputs.numbers.slice(0, i, i + 1);
    const z = x.mul(number(0));
    const predictions = guidance.branches(info).map((branch) => {
      const label = branch.condition === 'positive' ? inputs.labels : inputs.negatives;
      const answer = () =>
        branch.predict?.(z, inputs.timestep, { labels: label }) ??
        predict(model, z, inputs.timestep, model.nullClass === undefined ? undefined : label);
      const layers = branch.perturb?.(model, [z.shape[2], z.shape[3]]);
      return [branch.name, layers ? withPerturbations(layers, answer) : answer()] as const;
    });
    const numbers = inputs.numbers.slice(0, 3);
    const { prediction } = guidePrediction(guidance, new Map(predictions), numbers, [], x.shape[1]);
    return x.mul(number(1)).add(prediction.slice(1, 0, x.shape[1]).mul(number(2)));
  };

  /** One compiled function per set of branches. */
  const perBranches = <A extends readonly Tensor[], R extends Record<string, Tensor>>(
    build: (inputs: Inputs, info: StepInfo, ...rest: A) => R,
  ) => {
    const graphs = new Map<string, Compiled<[Inputs, ...A], R>>();
    return {
      of(info: StepInfo): Compiled<[Inputs, ...A], R> {
        const branches = guidance.branches(info);
        for (const { condition } of branches)
          if (condition !== positive.condition && (condition !== negative.condition || model.nullClass === undefined))
            throw new RangeError(
              `scoreModel: guidance needs a condition '${condition}', which the model does not know`,
            );
        const key = branches.map((branch) => branch.name).join();
        const known = graphs.get(key);
        if (known) return known;
        const made = compile((inputs: Inputs, ...rest: A) => build(inputs, info, ...rest), { freeze: true, ...how });
        graphs.set(key, made as unknown as Compiled<[Inputs, ...A], R>);
        return made as unknown as Compiled<[Inputs, ...A], R>;
      },
      release: async () => {
        for (const made of graphs.values()) await made.release();
      },
    };
  };
  const plain = perBranches((inputs, info) => ({ score: graph(inputs, inputs.x, info) }));
  const differentiated = perBranches((inputs, info, probe: Tensor) =>
    scoreDivergence((x) => graph(inputs, x, info), inputs.x, inputs.timestep, probe),
  );

  const fed = (x: NdArray<'float32'>, t: number) => {
    if (x.shape[0] !== classes.length)
      throw new RangeError(`scoreModel: ${x.shape[0]} samples, but ${classes.length} classes`);
    const { timestep, inputScale, score } = ask(t);
    const ofPrediction = score.prediction ?? 0;
    const index = Math.min(guidanceSteps - 1, Math.floor((1 - t) * guidanceSteps));
    const info: StepInfo = { index, total: guidanceSteps, timestep, predictionPerScore: inputScale / ofPrediction };
    const inputs = {
      x,
      numbers: ndarray([inputScale, score.x ?? 0, ofPrediction, ...guidance.inputs(info)]),
      timestep: ndarray(new Float32Array(classes.length).fill(timestep)),
      labels,
      negatives,
    };
    return { info, inputs };
  };
  return {
    sde,
    async score(x, t) {
      const { info, inputs } = fed(x, t);
      return (await plain.of(info)(inputs)).score;
    },
    async scoreDivergence(x, t, probe) {
      const { info, inputs } = fed(x, t);
      return differentiated.of(info)(inputs, probe);
    },
    async release() {
      await plain.release();
      await differentiated.release();
    },
  };
}

export interface FlowSampleOptions extends ScoreModelOptions, FlowOptions {
  /** A seed, or a generator to go on with; default 0. */
  readonly seed?: number | Generator;
  /** [height, width]; default the model's. */
  readonly size?: readonly [number, number];
  /** Where the flow ends, short of 0; default 1e-3. */
  readonly to?: number;
  readonly signal?: AbortSignal;
}

/**
 * Samples by the probability-flow ODE with adaptive steps.
 * @returns images [N, C, H, W] and how often the model was called.
 */
export async function sampleByFlow(
  options: FlowSampleOptions,
): Promise<{ readonly images: NdArray<'float32'>; readonly evaluations: number }> {
  const { model, classes, seed = 0, size = [model.sampleSize, model.sampleSize], signal } = options;
  const rng = seed instanceof Generator ? seed : new Generator(seed);
  const scores = scoreModel(options);
  const score: ScoreFunction = (x, t) => {
    signal?.throwIfAborted();
    return scores.score(x, t);
  };
  try {
    const start = samplePrior(scores.sde, [classes.length, model.inChannels, ...size], rng);
    const { x, evaluations } = await probabilityFlow(scores.sde, score, start, { ...options, from: 1 });
    return { images: x, evaluations };
  } finally {
    await scores.release();
  }
}

export interface LikelihoodOptions extends ScoreModelOptions, FlowOptions {
  /** [N, C, H, W] in [-1, 1], of integers 0..255. */
  readonly images: NdArray<'float32'>;
  /** Of the numbers that fill the gaps between the integers, and of the estimate's; default 0. */
  readonly seed?: number | Generator;
  /** Estimates to average over, each a solution of the ODE; default 1. */
  readonly probes?: number;
  /** Where the flow begins, short of 0; default 1e-3, about the least noise that models here are trained on. */
  readonly from?: number;
  readonly signal?: AbortSignal;
}

/**
 * How many bits per dimension a model needs for images of 256 levels: an upper bound by uniform dequantisation, the
 * density by the probability-flow ODE with Hutchinson's estimator (Song et al. 2021, table 2).
 * @returns of each image, in the order given.
 */
export async function likelihood(
  options: LikelihoodOptions,
): Promise<{ readonly bitsPerDimension: Float64Array; readonly evaluations: number }> {
  const { images, seed = 0, probes = 1, signal, from = 1e-3 } = options;
  const rng = seed instanceof Generator ? seed : new Generator(seed);
  const size = images.data.length / images.shape[0];
  const scores = scoreModel(options);
  const score: ScoreDivergenceFunction = (x, t, probe) => {
    signal?.throwIfAborted();
    return scores.scoreDivergence(x, t, probe);
  };
  const bits = new Float64Array(images.shape[0]);
  let calls = 0;
  try {
    for (let i = 0; i < probes; i++) {
      const data = dequantized(images, rng);
      const probe = hutchinsonProbe(images.shape, rng);
      const { logProb, evaluations } = await logLikelihood(scores.sde, score, data, probe, { ...options, from });
      for (const [n, value] of logProb.entries()) bits[n] += bitsPerDimension(value, size) / probes;
      calls += evaluations;
    }
  } finally {
    await scores.release();
  }
  return { bitsPerDimension: bits, evaluations: calls };
}

/** Integers as numbers of [0, 256), evenly spread between them, scaled to [-1, 1]. */
function dequantized(images: NdArray<'float32'>, rng: Generator): NdArray<'float32'> {
  const gaps = rng.rand(images.shape).data;
  return ndarray(
    images.data.map((x, i) => (Math.round((x + 1) * 127.5) + gaps[i]) / 128 - 1),
    images.shape,
  );
}
