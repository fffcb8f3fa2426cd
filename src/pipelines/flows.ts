import { type NdArray, ndarray } from '../array/index.js';
import {
  type BaseDistribution,
  bitsPerDim,
  checkPixels,
  dequantize,
  Flattened,
  type Flow,
  FlowModel,
  FlowSequence,
  MaskedAutoregressiveFlow,
} from '../models/index.js';
import type { Module } from '../nn/index.js';
import { Generator } from '../random/index.js';
import { type CompileOptions, compile, type Tensor } from '../tensor/index.js';
import { slerp } from './interpolate.js';

/** A flow with the distribution of its latents, as FlowModel. */
export interface FlowDensity extends Module, Flow {
  readonly base: BaseDistribution;
  logProb(x: Tensor): Tensor;
}

interface FlowCall {
  readonly model: FlowDensity;
  readonly compile?: CompileOptions;
}

/** Runs a function of the model once. */
async function once<A extends readonly Tensor[]>(
  fn: (...args: A) => Tensor,
  args: { [I in keyof A]: NdArray },
  options?: CompileOptions,
): Promise<NdArray<'float32'>> {
  const run = compile((xs: readonly Tensor[]) => ({ y: fn(...(xs as unknown as A)) }), options);
  try {
    const { y } = await run(args as unknown as readonly NdArray[]);
    return y as NdArray<'float32'>;
  } finally {
    await run.release();
  }
}

/** Latents of data: [N, ...] to [N, ...]. */
export const encodeFlow = (options: FlowCall & { readonly x: NdArray }): Promise<NdArray<'float32'>> =>
  once((x: Tensor) => options.model.forward(x).z, [options.x], options.compile);

/**
 * Data of latents, [N, ...] to [N, ...]. Masked autoregressive flows are solved for by repeating one compiled pass until
 * nothing changes, at most once for each variable (Song et al. 2021, arXiv:2002.03629).
 * @throws AbortError.
 */
export async function decodeFlow(
  options: FlowCall & { readonly z: NdArray<'float32'>; readonly signal?: AbortSignal },
): Promise<NdArray<'float32'>> {
  let x = options.z;
  for (const part of partsOf(options.model).toReversed()) {
    options.signal?.throwIfAborted();
    x =
      part instanceof MaskedAutoregressiveFlow
        ? await solved(part, x, options)
        : await once((z: Tensor) => part.inverse(z).x, [x], options.compile);
  }
  return x;
}

/** A flow's parts from data to latents: masked autoregressive ones, and what lies between them. */
function partsOf(flow: Flow): Flow[] {
  if (flow instanceof FlowModel) return partsOf(flow.flow);
  if (flow instanceof Flattened && flow.flow instanceof MaskedAutoregressiveFlow) return [flow.flow];
  if (!(flow instanceof FlowSequence)) return [flow];
  const joined: Flow[] = [];
  for (const part of flow.flows.flatMap(partsOf)) {
    const last = joined.at(-1);
    const apart = [part, last].some((x) => !x || x instanceof MaskedAutoregressiveFlow);
    if (apart) joined.push(part);
    else joined[joined.length - 1] = new FlowSequence([last!, part]);
  }
  return joined;
}

async function solved(
  flow: MaskedAutoregressiveFlow,
  latents: NdArray<'float32'>,
  { compile: how, signal }: { readonly compile?: CompileOptions; readonly signal?: AbortSignal },
): Promise<NdArray<'float32'>> {
  const z = ndarray(latents.data, [latents.shape[0], flow.features]);
  const pass = compile((z: Tensor, x: Tensor) => ({ x: flow.refine(z, x) }), { freeze: true, ...how });
  try {
    let x = z;
    for (let done = 0; done < flow.features; done++) {
      signal?.throwIfAborted();
      const before = x.data;
      ({ x } = (await pass(z, x)) as { x: NdArray<'float32'> });
      if (x.data.every((value, i) => Math.abs(value - before[i]) <= 1e-7 * Math.max(1, Math.abs(value)))) break;
    }
    return ndarray(x.data, latents.shape);
  } finally {
    await pass.release();
  }
}

/**
 * Samples of a flow. @param temperature spreads the latents less (below 1: likelier, less varied) or more; default 1.
 * @returns [count, ...].
 * @throws RangeError for a temperature below 0, or a count that is no whole number from 1.
 */
export async function sampleFlow(
  options: FlowCall & {
    readonly count: number;
    readonly temperature?: number;
    readonly seed?: number;
    readonly signal?: AbortSignal;
  },
): Promise<NdArray<'float32'>> {
  const { model, count, temperature = 1, seed = 0 } = options;
  if (!(temperature >= 0)) throw new RangeError(`sampleFlow: temperature ${temperature}, expected 0 or more`);
  if (!(Number.isInteger(count) && count > 0))
    throw new RangeError(`sampleFlow: count ${count}, expected a whole number from 1`);
  const rng = new Generator(seed);
  const z = await once(() => model.base.sample(count, temperature, rng), [], options.compile);
  return decodeFlow({ ...options, z });
}

/** log p(x) in nats, [N], of x [N, ...]. */
export const flowLogProb = (options: FlowCall & { readonly x: NdArray }): Promise<NdArray<'float32'>> =>
  once((x: Tensor) => options.model.logProb(x), [options.x], options.compile);

/**
 * What a flow of dequantised images takes to code each of them, in bits per value, [N].
 * @param images [N, C, H, W] of 256 levels in 0..1. @param seed of the noise that fills the levels.
 * @throws RangeError for pixels outside 0..1.
 */
export async function imageBitsPerDim(
  options: FlowCall & { readonly images: NdArray; readonly seed?: number },
): Promise<NdArray<'float32'>> {
  const { model, images, seed = 0 } = options;
  checkPixels('imageBitsPerDim', images);
  const noise = new Generator(seed).rand(images.shape);
  const dims = images.data.length / images.shape[0];
  return once(
    (x: Tensor, u: Tensor) => bitsPerDim(model.logProb(dequantize(x, u)), dims),
    [images, noise],
    options.compile,
  );
}

/**
 * Samples on the way between two: their latents' spherical interpolation, through the flow.
 * @param ends [2, ...]. @returns [count, ...], from the first to the second.
 * @throws RangeError for other than two ends, or a count below 2.
 */
export async function interpolateFlow(
  options: FlowCall & { readonly ends: NdArray; readonly count?: number; readonly signal?: AbortSignal },
): Promise<NdArray<'float32'>> {
  const { ends, count = 9 } = options;
  if (ends.shape[0] !== 2) throw new RangeError(`interpolateFlow: ${ends.shape[0]} ends, expected 2`);
  if (!(Number.isInteger(count) && count >= 2))
    throw new RangeError(`interpolateFlow: count ${count}, expected a whole number from 2`);
  const { data } = await encodeFlow({ ...options, x: ends });
  const [a, b] = [data.slice(0, data.length / 2), data.slice(data.length / 2)];
  const latents = new Float32Array(count * a.length);
  for (let i = 0; i < count; i++) latents.set(slerp(a, b, i / (count - 1)), i * a.length);
  const shape = [count, ...ends.shape.slice(1)];
  return decodeFlow({ ...options, z: ndarray(latents, shape) });
}
