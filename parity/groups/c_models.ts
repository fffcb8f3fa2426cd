import { type NdArray, ndarray } from '../../src/array/index.js';
import { denoiserClass } from '../../src/models/index.js';
import { Generator } from '../../src/random/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

/** One time for all images, or one for each: as [N]. */
export function timesteps(reference: ReferenceCase, count: number): NdArray {
  const scalars = reference.description.scalar_inputs as { timestep?: number } | undefined;
  const stored = reference.optionalInput('timestep') ?? ndarray([scalars?.timestep ?? 0], [1], 'int64');
  if (stored.data.length === count) return ndarray(stored.data, [count], stored.dtype);
  const values = Array.from({ length: count }, () => Number(stored.data[0]));
  return ndarray(values, [count], stored.dtype as 'int64' | 'float32');
}

/** DiT and UNet2D: images, times and labels to predictions. */
async function denoiser(reference: ReferenceCase): Promise<Outputs> {
  const model = denoiserClass(reference.kind).fromJson(reference.config, new Generator(0));
  model.loadStateDict(reference.weights);
  const images = reference.optionalInput('sample') ?? reference.input('hidden_states');
  const labels = reference.optionalInput('class_labels');
  const predict = compile((x: Tensor, t: Tensor, y: readonly Tensor[]) => model.forward(x, t, y[0]));
  const prediction = await predict(images, timesteps(reference, images.shape[0]), labels ? [labels] : []);
  await predict.release();
  return { 'out.sample': prediction };
}

export const adapters: Readonly<Record<string, Adapter>> = { DiTTransformer2DModel: denoiser, UNet2DModel: denoiser };
