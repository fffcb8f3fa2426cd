import { type NdArray, ndarray } from '../array/index.js';
import type { Denoiser } from '../models/index.js';
import { Generator } from '../random/index.js';
import type { Sampler } from '../samplers/index.js';
import { sample } from './sample.js';

export interface PairOptions extends Pick<Parameters<typeof sample>[0], 'guidance' | 'signal' | 'compile'> {
  readonly model: Denoiser;
  /** Of the flow, and without fresh noise: `flowMatchEuler`, or unipc on flow sigmas. */
  readonly sampler: Sampler;
  readonly steps: number;
  /** The class of each pair, the null class included. */
  readonly labels: readonly number[];
  readonly seed: number | Generator;
  /** False for a model trained without dropping classes. */
  readonly knowsNullClass?: boolean;
}

/** Noise and the sample that a flow carries it to, both [N, C, H, W]. */
export interface FlowPairs {
  readonly noise: NdArray<'float32'>;
  readonly samples: NdArray<'float32'>;
}

/**
 * The pairs of reflow (Liu et al. 2023): solves a flow's ODE from fresh noise. Guidance, if any, becomes part of what the
 * pairs say.
 * @throws RangeError for a sampler of something else than a flow; AbortError when the signal fires.
 */
export async function drawPairs({ labels, steps, seed, ...options }: PairOptions): Promise<FlowPairs> {
  const { model, sampler } = options;
  if (sampler.predictionType !== 'flow')
    throw new RangeError(`drawPairs: ${sampler.className} predicts ${sampler.predictionType}, expected flow`);
  const rng = seed instanceof Generator ? seed : new Generator(seed);
  const noise = rng.randn([labels.length, model.inChannels, model.sampleSize, model.sampleSize]);
  let samples: NdArray = noise;
  for await (const step of sample({ ...options, plan: { steps }, classes: labels, latents: noise, seed: rng }))
    samples = step.sample;
  return { noise, samples: samples as NdArray<'float32'> };
}

/**
 * How far a flow is from straight lines, from the states of Euler's method at even steps, the noise first:
 * the mean over steps, samples and numbers of (x_end - x_begin - v)², Liu et al. 2023's S(Z) for each number. 0 is straight.
 * @param states at least two, each [N, ...].
 */
export function straightness(states: readonly NdArray<'float32'>[]): number {
  const steps = states.length - 1;
  if (steps < 1) throw new RangeError(`straightness: ${states.length} states, expected at least 2`);
  const [begin, end] = [states[0].data, states[steps].data];
  let sum = 0;
  for (let k = 0; k < steps; k++) {
    const [from, to] = [states[k].data, states[k + 1].data];
    for (let i = 0; i < begin.length; i++) sum += (end[i] - begin[i] - steps * (to[i] - from[i])) ** 2;
  }
  return sum / (steps * begin.length);
}

/** Some of the pairs, in the order asked for. */
export function pairsAt(pairs: FlowPairs, indices: ArrayLike<number>): FlowPairs {
  const at = ({ data, shape }: NdArray<'float32'>): NdArray<'float32'> => {
    const size = data.length / shape[0];
    const taken = new Float32Array(indices.length * size);
    for (let i = 0; i < indices.length; i++)
      taken.set(data.subarray(indices[i] * size, (indices[i] + 1) * size), i * size);
    return ndarray(taken, [indices.length, ...shape.slice(1)]);
  };
  return { noise: at(pairs.noise), samples: at(pairs.samples) };
}
