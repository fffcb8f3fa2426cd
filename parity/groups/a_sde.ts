import { type NdArray, ndarray, toFloat32 } from '../../src/array/index.js';
import { chainSigmas, sdeTimes } from '../../src/diffusion/index.js';
import { camelCase } from '../../src/io/index.js';
import { applyStep, coefficientsOf, type SamplerPlan, scoreSdeVe, scoreSdeVp } from '../../src/samplers/index.js';
import { compile, type Tensor } from '../../src/tensor/index.js';
import type { Adapter, Outputs } from '../adapter.js';
import type { ReferenceCase } from '../case.js';

const configOf = ({ config }: ReferenceCase): object =>
  Object.fromEntries(
    Object.entries(config).flatMap(([key, value]) => (key.startsWith('_') ? [] : [[camelCase(key), value]])),
  );

const stepsOf = ({ description }: ReferenceCase): number => Number(description.steps);

const nth = (array: NdArray<'float32'>, k: number): NdArray<'float32'> => {
  const size = array.data.length / array.shape[0];
  return ndarray(array.data.slice(k * size, (k + 1) * size), array.shape.slice(1));
};

const stacked = (arrays: readonly NdArray[]): NdArray =>
  ndarray(Float32Array.from(arrays.flatMap((x) => [...(x.data as Float32Array)])), [arrays.length, ...arrays[0].shape]);

/** The chain of a run on what the stand-in for a model says in each call, with and without each call's noise. */
async function chain(reference: ReferenceCase, plan: SamplerPlan, model: (x: Tensor, k: number) => Tensor) {
  const noise = toFloat32(reference.given('noise'));
  const results: { next: NdArray; mean: NdArray; answer: NdArray }[] = [];
  let x: NdArray = reference.given('sample_init');
  for (const k of plan.calls.keys()) {
    const step = compile((coefficients: Tensor, still: Tensor, state: Tensor, drawn: Tensor) => {
      const answer = model(state, k);
      const to = (by: Tensor) =>
        applyStep(plan.layout, { coefficients: by, state: [state], prediction: answer, noise: drawn }).state[0];
      return { next: to(coefficients), mean: to(still), answer };
    });
    const row = coefficientsOf(plan, k);
    const still = row.data.map((c, i) => (['noise', 'shake'].includes(plan.layout.terms[i - 1]?.term) ? 0 : c));
    results.push(await step(row, ndarray(still), x, nth(noise, k)));
    await step.release();
    x = results[k].next;
  }
  return results;
}

const exploding: Adapter = async (reference) => {
  const config = configOf(reference) as {
    sigmaMin: number;
    sigmaMax: number;
    correctSteps: number;
    samplingEps: number;
  };
  const sampler = scoreSdeVe(config);
  const steps = stepsOf(reference);
  const plan = sampler.plan({ steps, denoise: false });
  const perTime = plan.calls.length / steps;
  const sigmas = plan.calls.filter((_, k) => k % perTime === 0).map((call) => call.sigma);
  const results = await chain(reference, plan, (x, k) => {
    const i = Math.floor(k / perTime);
    return x.div(-(1 + sigmas[i] ** 2)).add(0.01 * Math.sin(i));
  });
  const outputs: Record<string, NdArray> = {
    timesteps: ndarray(sdeTimes(steps, sampler.config.samplingEps)),
    sigmas: ndarray(sigmas),
    discrete_sigmas: ndarray(chainSigmas(sampler.config.sigmaMin, sampler.config.sigmaMax, steps)),
    init_noise_sigma: ndarray([plan.initialScale], []),
    model_outputs: stacked(results.map((result) => result.answer)),
    prev_samples: stacked(results.map((result) => result.next)),
    prev_sample_means: stacked(results.filter((_, k) => k % perTime === perTime - 1).map((result) => result.mean)),
  };
  if (reference.tensors.has('add_noise')) {
    const [x0, noise] = [toFloat32(reference.given('x0')), toFloat32(reference.given('noise_x0'))];
    const table = chainSigmas(sampler.config.sigmaMin, sampler.config.sigmaMax, steps);
    const size = x0.data.length / x0.shape[0];
    const levels = Array.from(reference.given('add_noise_t').data as BigInt64Array, (t) => table[Number(t)]);
    outputs.add_noise = ndarray(
      x0.data.map((x, i) => x + levels[Math.floor(i / size)] * noise.data[i]),
      x0.shape,
    );
  }
  return outputs;
};

const preserving: Adapter = async (reference): Promise<Outputs> => {
  const sampler = scoreSdeVp(configOf(reference));
  const steps = stepsOf(reference);
  const plan = sampler.plan({ steps, denoise: false });
  const results = await chain(reference, plan, (x, k) => x.mul(0.3).add(0.05 * Math.sin(k)));
  return {
    timesteps: ndarray(sdeTimes(steps, sampler.config.samplingEps)),
    scores: stacked(results.map((result) => result.answer)),
    prev_samples: stacked(results.map((result) => result.next)),
    prev_sample_means: stacked(results.map((result) => result.mean)),
  };
};

export const adapters: Readonly<Record<string, Adapter>> = {
  ScoreSdeVeScheduler: exploding,
  ScoreSdeVpScheduler: preserving,
};
